"""Signals that end labctl, deferred while it must not be interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Longest wait in one system call: a signal that arrives just before it is handled only
# after it returns.
STEP_SECONDS = 1.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def deferred() -> Iterator[None]:
    """Run the handlers of signals that end labctl after the block instead of within it.

    An exception from a handler while a program is being started would leave the program
    without an owner. Handlers are replaced: with a signal mask, the kernel would deliver
    the signal to another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs handlers in the main thread only
        return
    received: list[int] = []
    current = {number: signal.getsignal(number) for number in _ENDING}
    handlers = {number: handler for number, handler in current.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for late in received:
        handlers[signal.Signals(late)](late, None)
