"""A limit of the CPU time of a block, for patterns of lab.yaml on what a guest printed."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from labctl.errors import BadOutput


@contextlib.contextmanager
def cpu_limit(seconds: float, what: str) -> Iterator[None]:
    """Raise BadOutput with the text `what` if the block uses more CPU time.

    `re` looks for signals while it matches. They come in the main thread only; for other
    threads, see `apart`.
    """

    def expired(*_: object) -> None:
        raise BadOutput(what)

    before = signal.signal(signal.SIGVTALRM, expired)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
