"""The terminal's keys, one by one; it is put back as it was, whatever happens."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import time
from collections.abc import Iterator
from types import FrameType

# Ctrl-] as telnet has it, and Ctrl-C.
DETACH_KEYS = b"\x1d\x03"
_LOCAL_FLAGS = 3
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_came: list[int] = []  # those that have begun to end this process


@contextlib.contextmanager
def unwound() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the program by a SystemExit, so that all is put in order.

    Its status is 128 and the signal's number. A signal that is ignored, as nohup has it,
    stays so.
    """
    heard = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, _end) for number in heard}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def ended_by() -> int:
    """Return the exit status that such a signal has asked for, 0 if none came."""
    return 128 + _came[0] if _came else 0


def _end(number: int, _: FrameType | None) -> None:
    _came.append(number)
    raise SystemExit(128 + number)


@contextlib.contextmanager
def keys(descriptor: int) -> Iterator[None]:
    """Have a terminal hand over each key at once, unseen and without its usual meaning.

    Output is not touched. What is no terminal is left alone.
    """
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    now = termios.tcgetattr(descriptor)
    now[_LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
    with unwound():
        try:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, now)
            yield
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def detached(descriptor: int, wait_seconds: float) -> bool:
    """Wait this long; return whether a key to detach was pressed, or the terminal is gone."""
    if not os.isatty(descriptor):
        time.sleep(wait_seconds)
        return False
    ready, _, _ = select.select([descriptor], [], [], wait_seconds)
    if not ready:
        return False
    try:
        pressed = os.read(descriptor, 1024)
    except OSError:
        return True
    return not pressed or any(key in DETACH_KEYS for key in pressed)
