"""flock(2) with a deadline.

It is tried in short steps: a blocking call would delay the handlers of signals.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_POLL_SECONDS = 0.02


def take(descriptor: int, *, shared: bool = False, timeout_seconds: float) -> bool:
    """Lock an open file; return whether this succeeded within `timeout_seconds`."""
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


@contextlib.contextmanager
def held(
    descriptor: int,
    *,
    shared: bool = False,
    timeout_seconds: float,
    busy: Callable[[], Exception],
) -> Iterator[None]:
    """Lock an open file for the block, then unlock and close it.

    `busy` returns the exception to raise if another process keeps the lock.
    """
    try:
        if not take(descriptor, shared=shared, timeout_seconds=timeout_seconds):
            raise busy()
        try:
            yield
        finally:
            # Closing alone does not unlock it while a forked child has it open.
            give_back(descriptor)
    finally:
        os.close(descriptor)


def give_back(descriptor: int) -> None:
    """Unlock an open file."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def holders(lock: Path) -> Iterator[int]:
    """Yield the pids of processes that have a lock file open, if this user may see them."""
    wanted = lock.stat()
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    info = entry.stat()
                    if (info.st_dev, info.st_ino) == (wanted.st_dev, wanted.st_ino):
                        yield int(folder.parent.name)
                        break
