"""flock(2) with a deadline, tried in short steps: a call that blocks could lose a signal."""

from __future__ import annotations

import fcntl
import time

_POLL_SECONDS = 0.02


def take(descriptor: int, *, shared: bool = False, timeout_seconds: float) -> bool:
    """Take an open file's lock; return whether it came within `timeout_seconds`."""
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
