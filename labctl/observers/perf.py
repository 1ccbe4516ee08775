"""Events counted by `perf stat` in the whole guest: scripts, and the parser. Pure.

The format is that of `perf stat -x`, perf-stat(1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from labctl.observers.observer import Counters

COUNTS = ("/run/labctl-perf",)
# Software events are always there; the others need an accelerator with counters.
EVENTS = (
    "context-switches",
    "cpu-migrations",
    "page-faults",
    "cycles",
    "instructions",
    "branches",
    "branch-misses",
    "cache-references",
    "cache-misses",
    "dTLB-load-misses",
    "iTLB-load-misses",
)
_LONGEST_SECONDS = 100_000
# perf counts from before its command starts until it ends, so the command is killed: with a
# command, perf ignores SIGINT. setsid, as a process group is killed at the end of its script.
START = f"""\
command -v perf >/dev/null || {{ echo "perf: program not found" >&2; exit 9; }}
rm -f {COUNTS[0]} {COUNTS[0]}.on
setsid perf stat -a -x ';' -e {",".join(EVENTS)} -o {COUNTS[0]} -- \\
  /bin/sh -c 'echo $$ >{COUNTS[0]}.on; exec sleep {_LONGEST_SECONDS}' </dev/null >/dev/null 2>&1 &
echo $! >{COUNTS[0]}.pid
for i in $(seq 100); do [ -s {COUNTS[0]}.on ] && break; sleep 0.1; done
"""
STOP = f"""\
read -r child <{COUNTS[0]}.on && kill "$child"
read -r pid <{COUNTS[0]}.pid
for i in $(seq 100); do kill -s 0 "$pid" || break; sleep 0.1; done 2>/dev/null
"""
_LINE = re.compile(r"([0-9]{1,19})(?:\.[0-9]+)?;[^;]*;([^;]+);.*")


def perf(texts: Mapping[str, str]) -> Counters:
    """Return the counts by event, without those that the guest's CPUs do not have."""
    matches = map(_LINE.fullmatch, "".join(texts.values()).splitlines())
    return {match[2]: int(match[1]) for match in matches if match is not None}
