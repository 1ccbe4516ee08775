"""File locks around guests: a guest's folder, the guests of `labctl up`, a command port."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from labctl import files, flock
from labctl.errors import HostError, UserError

_FOLDER_SECONDS = 10.0
_FLEET_LOCK = "fleet.lock"
_FLEET_SECONDS = 120.0
_COMMAND_PORT_SECONDS = 1.0


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock the folder of a guest; a second guest would take its sockets and logs.

    Raises:
        HostError: a guest of another labctl process still uses it after 10 s.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    busy = HostError(
        "folder is in use by a guest of another labctl process",
        where=str(folder),
        hint="wait until it finishes, or set another `state:` in a copy of lab.yaml",
    )
    with flock.held(descriptor, timeout_seconds=_FOLDER_SECONDS, busy=lambda: busy):
        yield


@contextlib.contextmanager
def fleet_lock(folder: Path) -> Iterator[None]:
    """Keep other labctl processes from starting and stopping the guests under `folder`.

    Raises:
        HostError: another process still holds the lock after 120 s.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _FLEET_LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    busy = HostError(
        "guests are locked: another labctl process has been starting or stopping "
        f"guests for {_FLEET_SECONDS:g} s",
        where=str(path),
        hint="wait until it finishes, or stop it",
    )
    with flock.held(descriptor, timeout_seconds=_FLEET_SECONDS, busy=lambda: busy):
        for left in _removed(folder):
            files.remove(left)
        yield


def tidy(folder: Path) -> None:
    """Remove the folders of guests whose removal was interrupted by a kill."""
    if _removed(folder):
        with fleet_lock(folder):
            pass


def _removed(folder: Path) -> list[Path]:
    return list(folder.glob(f"*{files.REMOVED}"))


@contextlib.contextmanager
def command_port_lock(folder: Path, name: str) -> Iterator[None]:
    """Reserve the command port of the running guest in `folder` for this process.

    Raises:
        UserError: the folder is missing, or another process holds the lock after 1 s.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(
            f"the folder of guest {name} is missing",
            where=str(folder),
            hint=f"`labctl up {name}` restarts it, `labctl down {name}` stops it",
        ) from error
    busy = UserError(f"guest {name} is in use by another labctl process")
    with flock.held(descriptor, timeout_seconds=_COMMAND_PORT_SECONDS, busy=lambda: busy):
        yield
