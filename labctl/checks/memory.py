"""Memory of a guest that nobody has: neither free nor in anybody's account."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

_KIB = 1024
_PAGE_BYTES = 4096
_MEMINFO, _ZONEINFO = "/proc/meminfo", "/proc/zoneinfo"
# What /proc/meminfo accounts for, none of it part of another one. Slab belongs to
# them because KASAN keeps freed objects back; what leaks there kmemleak finds.
_ACCOUNTS = ("MemFree", "Buffers", "Cached", "SwapCached", "AnonPages", "Slab",
             "KernelStack", "PageTables", "Percpu", "Hugetlb")  # fmt: skip
_ON_PER_CPU_LISTS = re.compile(r"^ +count: +(\d+)$", re.MULTILINE)
# Per-CPU counters are folded into the sums each second.
_SETTLE_SECONDS = 15.0
_POLL_SECONDS = 0.5


class Files(Protocol):
    """The part of a guest that is needed here."""

    def exchange(self, writes: Mapping[str, str], reads: Sequence[str]) -> dict[str, str]:
        """Write files, then read some; unreadable ones are left out."""


def total_bytes(guest: Files) -> int:
    """Return the memory that the guest's kernel manages."""
    return _fields(guest.exchange({}, [_MEMINFO])[_MEMINFO])["MemTotal"]


def unaccounted_bytes(guest: Files) -> int:
    """Return how much memory is neither free nor accounted for.

    Part of it is the kernel's own; what counts is by how much it grew.
    """
    writes = {"/proc/sys/vm/drop_caches": "3"}
    texts = guest.exchange(writes, ["/proc/sys/vm/stat_refresh", _MEMINFO, _ZONEINFO])
    known = _fields(texts[_MEMINFO])
    per_cpu_pages = sum(map(int, _ON_PER_CPU_LISTS.findall(texts[_ZONEINFO])))
    accounted = sum(known.get(name, 0) for name in _ACCOUNTS) + per_cpu_pages * _PAGE_BYTES
    return known["MemTotal"] - accounted


def lost_bytes(guest: Files, before_bytes: int, tolerated_bytes: int) -> int:
    """Return by how much the unaccounted memory grew, once it has settled.

    Waits some seconds as long as it is more than `tolerated_bytes`.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        lost = unaccounted_bytes(guest) - before_bytes
        if lost <= tolerated_bytes or time.monotonic() > deadline:
            return lost
        time.sleep(_POLL_SECONDS)


def _fields(meminfo: str) -> dict[str, int]:
    """Return the fields of /proc/meminfo in bytes; those without a unit are left out."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", meminfo, re.MULTILINE)
    return {name: int(kib) * _KIB for name, kib in found}
