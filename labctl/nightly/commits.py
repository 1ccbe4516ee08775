"""Find the commits of a lab and its kernel trees."""

from __future__ import annotations

from pathlib import Path

from labctl.errors import CommandError, HostError, LabError
from labctl.host import checkout
from labctl.host.repository import Repository
from labctl.lab.models import Lab
from labctl.lab.sources import split_revision


def describe(folder: Path) -> str | None:
    """Return the `git describe` of a folder, None without git or without a commit.

    It ends in -dirty if a tracked file was changed.
    """
    try:
        name = (
            checkout.query(folder, "describe", "--always", "--tags", "--abbrev=12").decode().strip()
        )
        dirty = checkout.changed(folder, unknown=False)
    except (CommandError, HostError):
        return None
    return f"{name}-dirty" if dirty else name


def commits_of(lab: Lab) -> dict[str, str]:
    """Return the commit of the lab's own folder, as `lab`, and of each source in git."""
    found = {"lab": describe(lab.root)}
    for name, kernel in lab.kernels.items():
        kind, _, place = kernel.source.partition(":")
        if kind == "dir":
            found[name] = describe(Path(place))
        elif kind == "git":
            found[name] = _of_revision(*split_revision(place, lab.root))
    return {name: commit for name, commit in found.items() if commit}


def _of_revision(folder: str, revision: str) -> str | None:
    try:
        repository = Repository.find(Path(folder))
        commit = repository.resolve(revision).commit if repository else ""
        return repository.describe(commit) if repository and commit else None
    except LabError:  # reported by the build
        return None
