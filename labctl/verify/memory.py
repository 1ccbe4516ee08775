"""Unaccounted guest memory: neither free nor counted in /proc/meminfo."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from labctl.errors import BadOutput

_KIB = 1024
_PAGE_BYTES = 4096
_MEMINFO, _ZONEINFO = "/proc/meminfo", "/proc/zoneinfo"
# Disjoint fields of /proc/meminfo. Slab is one of them, as KASAN delays the freeing of
# objects; kmemleak finds leaks there.
_ACCOUNTS = ("MemFree", "Buffers", "Cached", "SwapCached", "AnonPages", "Slab",
             "KernelStack", "PageTables", "Percpu", "Hugetlb")  # fmt: skip
_ON_PER_CPU_LISTS = re.compile(r"^ +count: +([0-9]{1,15})$", re.MULTILINE)
# The kernel adds per-CPU counters to the totals once per second.
_SETTLE_SECONDS = 15.0
_POLL_SECONDS = 0.5


class Files(Protocol):
    """The part of a guest's interface that is used here."""

    def exchange(self, writes: Mapping[str, str], reads: Sequence[str]) -> dict[str, str]:
        """Write files, then read files and return them; unreadable ones are omitted."""


def total_bytes(guest: Files) -> int:
    """Return the memory that the guest's kernel manages, in bytes."""
    return _total(_fields(guest.exchange({}, [_MEMINFO]).get(_MEMINFO, "")))


def unaccounted_bytes(guest: Files) -> int:
    """Return the memory that is neither free nor accounted for, in bytes.

    The kernel itself uses part of it; only growth is meaningful.
    """
    writes = {"/proc/sys/vm/drop_caches": "3"}
    texts = guest.exchange(writes, ["/proc/sys/vm/stat_refresh", _MEMINFO, _ZONEINFO])
    known = _fields(texts.get(_MEMINFO, ""))
    per_cpu_pages = sum(map(int, _ON_PER_CPU_LISTS.findall(texts.get(_ZONEINFO, ""))))
    accounted = sum(known.get(name, 0) for name in _ACCOUNTS) + per_cpu_pages * _PAGE_BYTES
    return _total(known) - accounted


def lost_bytes(guest: Files, before_bytes: int, tolerated_bytes: int) -> int:
    """Return the growth of unaccounted memory since `before_bytes`, in bytes.

    Wait for up to 15 s while it is more than `tolerated_bytes`.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        lost = unaccounted_bytes(guest) - before_bytes
        if lost <= tolerated_bytes or time.monotonic() > deadline:
            return lost
        time.sleep(_POLL_SECONDS)


def _total(fields: Mapping[str, int]) -> int:
    """Return the total of /proc/meminfo.

    Raises:
        BadOutput: the guest did not print it.
    """
    if "MemTotal" not in fields:
        raise BadOutput(f"{_MEMINFO} of the guest has no MemTotal")
    return fields["MemTotal"]


def _fields(meminfo: str) -> dict[str, int]:
    """Return the fields of /proc/meminfo in bytes, without those that have no unit."""
    found = re.findall(r"^(\w+):\s+([0-9]{1,15}) kB$", meminfo, re.MULTILINE)
    return {name: int(kib) * _KIB for name, kib in found}
