"""The state folder in use: its marker, its lock, and what `labctl clean` removes of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from labctl import files, flock, lab_state
from labctl.errors import HostError, UserError
from labctl.printable import printable

_CLEAN_SECONDS = 600.0  # how long a clean of many trees may take
_POLITE_SECONDS = 2.0
_COLUMNS = 60


@contextlib.contextmanager
def used(folder: Path) -> Iterator[None]:
    """Keep `cleared` out of a state folder for the length of the block; make it if need be.

    Raises:
        HostError: it cannot be made, or somebody is clearing it and does not end.
        UserError: it holds what labctl did not make.
    """
    claim(folder)
    with _locked(folder, shared=True, timeout_seconds=_CLEAN_SECONDS) as had:
        if not had:
            raise HostError(
                f"another labctl has been clearing this folder for {_CLEAN_SECONDS:g} s",
                where=str(folder),
            )
        yield


@contextlib.contextmanager
def cleared(folder: Path) -> Iterator[None]:
    """Have a state folder that exists for oneself alone, to remove what is in it.

    Raises:
        UserError: another labctl uses it, or it holds what labctl did not make.
    """
    claim(folder)
    with _locked(folder, shared=False, timeout_seconds=_POLITE_SECONDS) as had:
        if not had:
            raise UserError(
                f"another labctl works here: {_users(folder)}",
                where=str(folder),
                hint="wait until it finishes, or end it",
            )
        yield


def claim(folder: Path) -> None:
    """Make a folder a state folder, unless it is one.

    Raises:
        HostError: it cannot be written.
        UserError: it holds what labctl did not make.
    """
    fault = lab_state.content_fault(folder)
    if fault:
        raise UserError(fault, where=str(folder), hint="see `state:` in lab.yaml")
    if not lab_state.is_marked(folder):
        try:
            files.replace(folder / lab_state.MARKER, lab_state.MARKER_LINE + "\n")
        except OSError as error:
            raise HostError(f"cannot be written: {error.strerror}", where=str(folder)) from error


def remove(folder: Path, names: Collection[str]) -> list[Path]:
    """Remove folders of a state folder by their names, if they are there; return those.

    Of a link the link is removed and nothing behind it. The folder must be `cleared`.

    Raises:
        HostError: one cannot be removed.
    """
    if not lab_state.is_marked(folder):
        raise HostError(f"has no {lab_state.MARKER}", where=str(folder))
    removed = []
    for name in sorted(names):
        path = folder / name
        files.remove(folder / f"{name}{files.REMOVED}")  # of one that was killed
        if os.path.lexists(path):
            files.remove(path)
            removed.append(path)
    return removed


@contextlib.contextmanager
def _locked(folder: Path, *, shared: bool, timeout_seconds: float) -> Iterator[bool]:
    path = folder / lab_state.LOCK
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        raise HostError(f"cannot be opened: {error.strerror}", where=str(path)) from error
    try:
        yield flock.take(descriptor, shared=shared, timeout_seconds=timeout_seconds)
    finally:
        os.close(descriptor)


def _users(folder: Path) -> str:
    """Return who has the lock open, as far as this user may see."""
    pids = [pid for pid in flock.holders(folder / lab_state.LOCK) if pid != os.getpid()]
    return ", ".join(f"process {pid} ({_command(pid)})" for pid in pids) or "of another user"


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return "ended just now"
    names = [Path(os.fsdecode(word)).name if i < 2 else os.fsdecode(word) for i, word in
             enumerate(words)]  # fmt: skip
    text = printable(" ".join(names))
    return text if len(text) <= _COLUMNS else f"{text[: _COLUMNS - 1]}…"
