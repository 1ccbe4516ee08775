"""What a killed build leaves: compilers that still run, and files they had half written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

from labctl import flock
from labctl.errors import HostError

_END_SECONDS = 30.0
_POLL_SECONDS = 0.05
# Compilers are ended in the middle of writing; this long before the last sign of
# life nothing was in the middle any more.
_SUSPECT_SECONDS = 5.0


def end_orphans(lock: Path) -> None:
    """Kill whoever still holds the lock that a build hands to all of its processes.

    The death of labctl ends make, but not make's children: they would go on
    writing objects of sources that are replaced under them.

    Raises:
        HostError: they cannot be ended.
    """
    if not lock.exists():
        return
    deadline = time.monotonic() + _END_SECONDS
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            holders = [pid for pid in flock.holders(lock) if pid != os.getpid()]
            for pid in holders:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                names = ", ".join(map(str, holders)) or "of another user"
                raise HostError(
                    f"compilers of a killed build do not end (processes {names})", where=str(lock)
                )
            time.sleep(_POLL_SECONDS)
    finally:
        os.close(descriptor)


def remove_half_written(build: Path) -> None:
    """Remove what make may wrongly take for finished.

    Kbuild writes `.NAME.cmd` when NAME is done. A target younger than its
    command file was in work, and what was finished last may be torn as well.
    """
    pairs = []
    for command in build.rglob(".*.cmd"):
        target = command.with_name(command.name[1:].removesuffix(".cmd"))
        with contextlib.suppress(FileNotFoundError):
            pairs.append((command.stat().st_mtime, target.stat().st_mtime, command, target))
    if not pairs:
        return
    last = max(max(done, made) for done, made, _, _ in pairs)
    for done, made, command, target in pairs:
        if made > done or max(made, done) > last - _SUSPECT_SECONDS:
            target.unlink(missing_ok=True)
            command.unlink(missing_ok=True)
