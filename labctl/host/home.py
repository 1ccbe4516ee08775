"""The user's home folder, which a user need not have."""

from __future__ import annotations

import os
from pathlib import Path

from labctl.errors import HostError


def expanded(text: str) -> Path:
    """Return a path; `~` is the user's home, and stays as it is without one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # a user that does not exist, or has no home
        return Path(text)


def xdg_folder(variable: str, default: str) -> Path:
    """Return the folder in a variable such as XDG_CACHE_HOME, by default one below the home.

    Raises:
        HostError: the variable is not set, and the user has no home.
    """
    # The XDG base directory specification ignores relative paths.
    asked = Path(os.environ.get(variable, ""))
    if asked.is_absolute():
        return asked
    try:
        return Path.home() / default
    except RuntimeError:
        raise HostError(
            "this user has no home folder", hint=f"set HOME, or {variable} to a folder"
        ) from None
