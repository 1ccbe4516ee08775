"""Small text files of /proc and /sys."""

from __future__ import annotations

import re
from pathlib import Path


def read(path: str | Path) -> str:
    """Return a file as text without surrounding white space, empty if it is unreadable."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def size_bytes(meminfo: str, name: str, default: int = 0) -> int:
    """Return a field of /proc/meminfo, or of a node's meminfo, `default` if it is missing."""
    found = re.search(rf"\b{re.escape(name)}:\s*(\d+) kB", meminfo)
    return int(found[1]) * 1024 if found else default
