"""Where `labctl try` keeps its files: in the user's state directory (XDG)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from labctl import files
from labctl.errors import HostError
from labctl.host.home import xdg_folder

_HASH_DIGITS = 8


def home() -> Path:
    """Return $XDG_STATE_HOME/labctl, by default ~/.local/state/labctl.

    Raises:
        HostError: the user has no home folder.
    """
    return xdg_folder("XDG_STATE_HOME", ".local/state") / "labctl"


def state_folder() -> Path:
    """Return the state folder of all trials: they share their builds."""
    return home() / "state"


def lab_path(repository: Path) -> Path:
    """Return the path of the lab.yaml for trials in a repository."""
    digest = hashlib.sha256(os.fsencode(repository)).hexdigest()[:_HASH_DIGITS]
    return home() / "labs" / f"{repository.name or 'root'}-{digest}" / "lab.yaml"


def write(path: Path, text: str) -> None:
    """Write a lab.yaml and the folders above it.

    Raises:
        HostError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, text)
    except OSError as error:
        raise HostError(f"cannot be written: {error.strerror}", where=str(path)) from error
