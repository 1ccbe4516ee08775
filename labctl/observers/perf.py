"""Events counted by `perf stat` in the whole guest: scripts of perf, and the parser. Pure.

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


def started(command: str, output: str) -> str:
    """Return the script that starts a command of perf, which writes a file in the guest."""
    # perf counts from before its command starts until it ends, so the command is killed: with
    # a command, perf ignores SIGINT. setsid, as a process group is killed at the end of its
    # script.
    return f"""\
command -v perf >/dev/null || {{ echo "perf: program not found" >&2; exit 9; }}
rm -f {output} {output}.on
setsid perf {command} -o {output} -- \\
  /bin/sh -c 'echo $$ >{output}.on; exec sleep {_LONGEST_SECONDS}' </dev/null >/dev/null 2>&1 &
echo $! >{output}.pid
for i in $(seq 100); do [ -s {output}.on ] && break; sleep 0.1; done
"""


def stopped(output: str) -> str:
    """Return the script that ends such a command and waits until its file is complete."""
    return f"""\
read -r child <{output}.on && kill "$child"
read -r pid <{output}.pid
for i in $(seq 100); do kill -s 0 "$pid" || break; sleep 0.1; done 2>/dev/null
"""


START = started(f"stat -a -x ';' -e {','.join(EVENTS)}", COUNTS[0])
STOP = stopped(COUNTS[0])
_LINE = re.compile(r"([0-9]{1,19})(?:\.[0-9]+)?;[^;]*;([^;]+);.*")


def perf(texts: Mapping[str, str]) -> Counters:
    """Return the counts by event, without those that the guest's CPUs do not have."""
    matches = map(_LINE.fullmatch, "".join(texts.values()).splitlines())
    return {match[2]: int(match[1]) for match in matches if match is not None}
