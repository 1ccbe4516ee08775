"""Small text files of /proc and /sys."""

from __future__ import annotations

import re
from pathlib import Path

_COUNT = re.compile(r"[0-9]{1,20}")
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def read(path: str | Path) -> str:
    """Return a file as text without surrounding white space, empty if it is unreadable."""
    try:
        # Often called: a third of the time of Path.read_text.
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


def is_count(text: str) -> bool:
    """Return whether a text is a number as the kernel prints one, of at most 64 bits."""
    return _COUNT.fullmatch(text) is not None


def size_bytes(meminfo: str, name: str, default: int = 0) -> int:
    """Return a field of /proc/meminfo, or of a node's meminfo, `default` if it is missing."""
    found = re.search(rf"\b{re.escape(name)}:\s*([0-9]{{1,15}}) kB", meminfo)
    return int(found[1]) * 1024 if found else default


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a kernel list: `0-2,8` is 0, 1, 2, 8. Other texts are ignored."""
    found: list[int] = []
    for part in text.strip().split(","):
        if match := _RANGE.fullmatch(part):
            found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(found)
