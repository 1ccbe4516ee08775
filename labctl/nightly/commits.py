"""Find the commits of a lab and its kernel trees."""

from __future__ import annotations

from pathlib import Path

from labctl.errors import CommandError, HostError
from labctl.host import checkout
from labctl.lab.models import Lab


def describe(folder: Path) -> str | None:
    """Return the `git describe` of a folder, None without git or without a commit.

    It ends in -dirty if a tracked file was changed.
    """
    try:
        name = (
            checkout.look(folder, "describe", "--always", "--tags", "--abbrev=12").decode().strip()
        )
        dirty = checkout.changed(folder, unknown=False)
    except (CommandError, HostError):
        return None
    return f"{name}-dirty" if dirty else name


def commits_of(lab: Lab) -> dict[str, str]:
    """Return the commit of the lab's own folder, as `lab`, and of each kernel tree in `dir:`."""
    found = {"lab": describe(lab.root)}
    for name, kernel in lab.kernels.items():
        kind, _, place = kernel.source.partition(":")
        if kind == "dir":
            found[name] = describe(Path(place))
    return {name: commit for name, commit in found.items() if commit}
