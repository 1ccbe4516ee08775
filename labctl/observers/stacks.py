"""Call stacks of the kernel's CPU time, sampled by `perf record`: scripts, and the parser. Pure.

The event cpu-clock is a timer of the kernel, so that it works without counters of the CPU, as
under TCG. The text is that of `perf script`, perf-script(1): a stack per sample, its innermost
function first, with an empty line after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from labctl.observers import perf
from labctl.observers.observer import Counters

STACKS = ("/run/labctl-stacks",)
NAME = "stacks"
_TIME = ".nanoseconds"
_PREFIX = f"{NAME}."
SEPARATOR = ";"
# Not a multiple of a tick, so that samples do not always fall on the same work.
_PERIOD_NANOSECONDS = 2_003_000
_MOST_STACKS = 300
_DATA = f"{STACKS[0]}.data"
# k: the kernel's own time; I: without the idle loop.
START = perf.started(
    f"record -a -B -N -e cpu-clock:kI -c {_PERIOD_NANOSECONDS} -g --kernel-callchains", _DATA
)
# Each stack once, its outermost function first, after its number of samples.
STOP = f"""\
{perf.stopped(_DATA)}\
perf script -i {_DATA} -F ip,sym 2>/dev/null | awk '
  function count() {{ if (stack != "") found[stack]++; stack = "" }}
  NF == 0 {{ count() }}
  NF >= 2 {{ stack = stack == "" ? $2 : $2 "{SEPARATOR}" stack }}
  END {{ count(); for (each in found) print found[each], each }}
' | sort -k 1 -n -r | head -n {_MOST_STACKS} >{STACKS[0]}
rm -f {_DATA} {_DATA}.old
"""
_LINE = re.compile(r"([0-9]{1,9}) (\S{1,4000})")


def stacks(texts: Mapping[str, str]) -> Counters:
    """Return the time of each stack by its functions, the outermost first: a;b;c.nanoseconds.

    A stack that was in no sample is not listed.
    """
    matches = map(_LINE.fullmatch, "".join(texts.values()).splitlines())
    return {
        f"{match[2]}{_TIME}": int(match[1]) * _PERIOD_NANOSECONDS
        for match in matches
        if match is not None
    }


def is_stack(name: str) -> bool:
    """Return whether a counter of a sample is the time of a stack."""
    return name.startswith(_PREFIX)


def functions_of(counters: Mapping[str, float]) -> dict[str, float]:
    """Return the counters with the times of functions in place of the times of stacks.

    A function's time contains that of the functions it calls.
    """
    found: dict[str, float] = {}
    for name, value in counters.items():
        # A function that calls itself is counted once.
        names = {f"{_PREFIX}{one}{_TIME}" for one in _path(name)} if is_stack(name) else {name}
        for own in names:
            found[own] = found.get(own, 0.0) + value
    return found


def frames_of(counters: Mapping[str, float]) -> dict[str, float]:
    """Return the times of frames: of each stack, and of each part of one from its beginning.

    The names are those of stacks. A frame's time contains that of the frames it calls.
    """
    found: dict[str, float] = {}
    for name, value in counters.items():
        names = _path(name) if is_stack(name) else []
        for depth in range(len(names)):
            frame = f"{_PREFIX}{SEPARATOR.join(names[: depth + 1])}{_TIME}"
            found[frame] = found.get(frame, 0.0) + value
    return found


def path_of(name: str) -> str:
    """Return the functions of a stack or a frame, the outermost first: a;b;c."""
    return name.removeprefix(_PREFIX).removesuffix(_TIME)


def _path(name: str) -> list[str]:
    return path_of(name).split(SEPARATOR)
