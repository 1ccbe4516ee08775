"""Which commits a lab and its kernel trees are at."""

from __future__ import annotations

from pathlib import Path

from labctl.errors import CommandError, HostError
from labctl.host import checkout
from labctl.lab.models import Lab


def describe(folder: Path) -> str | None:
    """Return what `git describe` says of a folder, None where there is no git or no commit.

    It ends in -dirty if a file that git knows was changed.
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
