"""Whether a parser's CPU time grows linearly with the length of its input."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

_FIRST_BYTES = 1 << 13
_LAST_BYTES = 1 << 20
# Below this time, noise and fixed costs hide how it grows.
_SHORT_SECONDS = 0.4
# An input of twice the length takes twice the time; four times would be quadratic. One is
# never enough: caches make single steps.
_FACTOR = 2.9


class NotLinear(AssertionError):
    """The time grew faster than the length, in two doublings one after the other."""


def check(parser: Callable[[bytes], object], before: bytes, unit: bytes, after: bytes) -> None:
    """Parse `unit` repeated to twice the length again and again, up to 1 MiB.

    Raises:
        NotLinear: the time grows faster than the length.
    """
    size, last, steep = _FIRST_BYTES, 0.0, 0
    while size <= _LAST_BYTES:
        data = before + unit * (size // len(unit)) + after
        seconds = _seconds(parser, data)
        steep = steep + 1 if last > _SHORT_SECONDS / 4 and seconds > _FACTOR * last else 0
        if steep == 2 or (steep and seconds > 10 * _SHORT_SECONDS):
            raise NotLinear(
                f"{unit[:20]!r} to {size >> 10} KiB: {seconds:.2f} s, half of it {last:.2f} s"
            )
        if seconds > 10 * _SHORT_SECONDS:
            return
        last, size = seconds, size * 2


def _seconds(parser: Callable[[bytes], object], data: bytes) -> float:
    # The garbage collector looks at all that is alive again and again: its share grows with the
    # length, of any parser that returns a tree.
    gc.disable()
    began = time.process_time()
    try:
        parser(data)
    finally:
        gc.enable()
    return time.process_time() - began
