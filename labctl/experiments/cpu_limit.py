"""A limit of the CPU time of a block, for patterns of lab.yaml on what a guest printed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from labctl.errors import BadOutput


@contextlib.contextmanager
def cpu_limit(seconds: float, what: str) -> Iterator[None]:
    """Raise BadOutput with the text `what` if the block uses more CPU time.

    `re` looks for signals while it matches. They come in the main thread only: in others
    there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expired(*_: object) -> None:
        raise BadOutput(what)

    before = signal.signal(signal.SIGVTALRM, expired)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
