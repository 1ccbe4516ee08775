"""Clean up after a killed build: running compilers and partly written files."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from labctl import flock
from labctl.errors import HostError

_END_SECONDS = 30.0
_POLL_SECONDS = 0.05
# Files finished within this time before the end of the build may be incomplete too.
_SUSPECT_SECONDS = 5.0


def end_orphans(lock: Path) -> None:
    """Kill the processes that still hold a build's lock, which all of them inherit.

    The death of labctl ends make, but not make's children: they would continue to write
    objects while the sources are replaced.

    Raises:
        HostError: a process does not end.
    """
    if not lock.exists():
        return
    deadline = time.monotonic() + _END_SECONDS
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        while not flock.take(descriptor, timeout_seconds=0):
            holders = [pid for pid in flock.holders(lock) if pid != os.getpid()]
            for pid in holders:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                names = ", ".join(map(str, holders)) or "of another user"
                raise HostError(
                    f"compilers of a killed build cannot be killed (processes {names})",
                    where=str(lock),
                )
            time.sleep(_POLL_SECONDS)
    finally:
        os.close(descriptor)


def remove_half_written(build: Path) -> None:
    """Remove the files that make would wrongly treat as finished.

    Kbuild writes `.NAME.cmd` when NAME is finished. A target younger than its command
    file is unfinished, and the last finished ones may be incomplete too.
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
