"""Parsers of counters in /proc. Pure. Lines of an unknown form are ignored.

The formats: Documentation/filesystems/proc.rst, Documentation/accounting/psi.rst and
slabinfo(5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from labctl.observers.observer import Counters

VMSTAT = ("/proc/vmstat",)
PRESSURE = tuple(f"/proc/pressure/{what}" for what in ("cpu", "memory", "io", "irq"))
INTERRUPTS = ("/proc/interrupts", "/proc/softirqs")
SLABINFO = ("/proc/slabinfo",)
BUDDYINFO = ("/proc/buddyinfo",)
_NANOSECONDS = 1000  # in the microsecond of /proc/pressure
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
# Events among the names that start as states do.
_VMSTAT_EVENTS = frozenset(
    [
        "nr_dirtied",
        "nr_written",
        "nr_vmscan_write",
        "nr_vmscan_immediate_reclaim",
        "nr_throttled_written",
        "nr_foll_pin_acquired",
        "nr_foll_pin_released",
    ]
)


def vmstat(texts: Mapping[str, str]) -> Counters:
    """Return the counters of /proc/vmstat by their names there."""
    lines = (line.split() for line in "".join(texts.values()).splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and _is_number(line[1])}


def is_vmstat_gauge(name: str) -> bool:
    """Return whether a counter of /proc/vmstat is a state, which also falls: nr_free_pages."""
    return (name.startswith("nr_") or name == "workingset_nodes") and name not in _VMSTAT_EVENTS


def psi(texts: Mapping[str, str]) -> Counters:
    """Return the times of /proc/pressure: memory.some_nanoseconds."""
    found = {}
    for path, text in texts.items():
        for kind, total in re.findall(r"^(some|full) .*\btotal=([0-9]{1,18})$", text, re.MULTILINE):
            name = f"{PurePosixPath(path).name}.{kind}_nanoseconds"
            found[name] = int(total) * _NANOSECONDS
    return found


def interrupts(texts: Mapping[str, str]) -> Counters:
    """Return interrupts by number or name, and softirqs, each summed over the CPUs.

    A numbered interrupt also has the name of its device: 4.ttyS0.
    """
    found: Counters = {}
    for path, text in texts.items():
        head, _, rest = text.partition("\n")
        cpus = len(head.split())
        prefix = "softirq." if path.endswith("softirqs") else ""
        for line in rest.splitlines():
            name, colon, columns = line.partition(":")
            words = columns.split()
            counts = words[:cpus]
            # ERR and MIS are one number for all CPUs.
            if not colon or not counts or not all(map(_is_number, counts)):
                continue
            full = name.strip()
            full += f".{words[-1]}" if full.isdecimal() and len(words) > cpus else ""
            found[f"{prefix}{full}"] = sum(map(int, counts))
    return found


def slab(texts: Mapping[str, str]) -> Counters:
    """Return objects in use and pages of each slab cache: dentry.objects, dentry.pages."""
    found = {}
    for line in "".join(texts.values()).splitlines():
        words, _, rest = line.partition(":")
        fields, slabs = words.split(), re.search(r"slabdata +[0-9]+ +([0-9]{1,18})", rest)
        if len(fields) != 6 or slabs is None or not all(map(_is_number, fields[1:])):
            continue
        found[f"{fields[0]}.objects"] = int(fields[1])
        found[f"{fields[0]}.pages"] = int(slabs[1]) * int(fields[5])
    return found


def buddyinfo(texts: Mapping[str, str]) -> Counters:
    """Return the free blocks of each node, zone and order: node0.Normal.order3."""
    found = {}
    for line in "".join(texts.values()).splitlines():
        place = re.match(r"Node +([0-9]+), +zone +(\S+) +", line)
        counts = line[place.end() :].split() if place else []
        if place is None or not all(map(_is_number, counts)):
            continue
        for order, count in enumerate(counts):
            found[f"node{place[1]}.{place[2]}.order{order}"] = int(count)
    return found


def is_any(_: str) -> bool:
    """Return True: all counters of the observer are states, which also fall."""
    return True


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None
