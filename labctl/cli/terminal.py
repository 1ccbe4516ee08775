"""Signals that end labctl, and single key presses from a terminal, which is restored."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import time
from collections.abc import Iterator
from types import FrameType

# Ctrl-] as in telnet, and Ctrl-C.
DETACH_KEYS = b"\x1d\x03"
_LOCAL_FLAGS = 3
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []  # received signals that end this process


@contextlib.contextmanager
def unwound() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that cleanup code runs.

    The exit status is 128 plus the signal number. Ignored signals (nohup) stay ignored.
    """
    handled = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, _end) for number in handled}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def ended_by() -> int:
    """Return the exit status for the received SIGTERM or SIGHUP, 0 if there was none."""
    return 128 + _received[0] if _received else 0


def _end(number: int, _: FrameType | None) -> None:
    _received.append(number)
    raise SystemExit(128 + number)


@contextlib.contextmanager
def keys(descriptor: int) -> Iterator[None]:
    """Disable line buffering, echo and signal keys of a terminal for the block.

    Output settings are unchanged. Does nothing if `descriptor` is not a terminal.
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
    """Wait; return whether a detach key was pressed or the terminal is gone."""
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
