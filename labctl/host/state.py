"""The state folder: its marker, its lock, and removal of its folders by `labctl clean`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from labctl import files, flock
from labctl.errors import HostError, UserError
from labctl.host import leftovers, state_folder
from labctl.lab.state import MARKER, MARKER_LINE, StateFolder
from labctl.printable import printable

_CLEAN_SECONDS = 600.0  # deleting many trees takes this long
_POLITE_SECONDS = 2.0
_COLUMNS = 60


@contextlib.contextmanager
def used(folder: Path) -> Iterator[None]:
    """Lock a state folder against `cleared` for the block; create it if necessary.

    Raises:
        HostError: the folder cannot be created, or another process clears it and does
            not finish within 10 minutes.
        UserError: the folder contains files that labctl did not create.
    """
    claim(folder)
    busy = HostError(
        f"another labctl has been cleaning this folder for {_CLEAN_SECONDS:g} s",
        where=str(folder),
    )
    lock = _lock_file(folder)
    leftovers.sweep(folder, lock)
    with (
        flock.held(lock, shared=True, timeout_seconds=_CLEAN_SECONDS, busy=lambda: busy),
        leftovers.marked(lock),
    ):
        yield


@contextlib.contextmanager
def cleared(folder: Path) -> Iterator[None]:
    """Lock an existing state folder exclusively for the block, to remove files in it.

    Raises:
        UserError: another labctl uses the folder, or the folder contains files that
            labctl did not create.
    """
    claim(folder)

    def busy() -> UserError:
        return UserError(
            f"in use by another labctl: {_users(folder)}",
            where=str(folder),
            hint="wait until it finishes, or stop it",
        )

    lock = _lock_file(folder)
    with flock.held(lock, timeout_seconds=_POLITE_SECONDS, busy=busy):
        leftovers.sweep(folder, lock)  # before the mark, which it would remove
        with leftovers.marked(lock):
            yield


def claim(folder: Path) -> None:
    """Create the marker of a state folder, unless it exists.

    Raises:
        HostError: the folder is not writable.
        UserError: the folder contains files that labctl did not create.
    """
    fault = state_folder.content_fault(folder)
    if fault:
        raise UserError(fault, where=str(folder), hint="see `state:` in lab.yaml")
    if not state_folder.is_marked(folder):
        try:
            files.replace(StateFolder(folder).marker, MARKER_LINE + "\n")
        except OSError as error:
            raise HostError(f"not writable: {error.strerror}", where=str(folder)) from error


def remove(folder: Path, names: Collection[str]) -> list[Path]:
    """Remove subfolders of a state folder by name; return the removed ones.

    A symbolic link is removed, not its target. The folder must be locked by `cleared`.

    Raises:
        HostError: a folder cannot be removed.
    """
    if not state_folder.is_marked(folder):
        raise HostError(f"no {MARKER}", where=str(folder))
    removed = []
    for name in sorted(names):
        path = folder / name
        files.remove(folder / f"{name}{files.REMOVED}")  # left by a killed clean
        if os.path.lexists(path):
            files.remove(path)
            removed.append(path)
    return removed


def _lock_file(folder: Path) -> int:
    """Open the lock file of a state folder and return its descriptor."""
    path = StateFolder(folder).lock
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o644)
    except OSError as error:
        raise HostError(f"cannot open: {error.strerror}", where=str(path)) from error


def _users(folder: Path) -> str:
    """Return the processes with the lock file open, as far as this user may see them."""
    pids = [pid for pid in flock.holders(StateFolder(folder).lock) if pid != os.getpid()]
    return (
        ", ".join(f"process {pid} ({_command(pid)})" for pid in pids) or "a process of another user"
    )


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return "already finished"
    names = [Path(os.fsdecode(word)).name if i < 2 else os.fsdecode(word) for i, word in
             enumerate(words)]  # fmt: skip
    text = printable(" ".join(names))
    return text if len(text) <= _COLUMNS else f"{text[: _COLUMNS - 1]}…"
