"""Parse a number with a unit in a program's output: `12.5 ms`, `812.5 MB/s`, `3`. Pure.

A number is a whole word of ASCII digits with a decimal point and without thousands
separators. A unit is known or absent; anything else is rejected, since a part of a number
(`402` of `402,5`) would be a wrong value. Times become seconds, sizes megabytes (10^6
bytes), and bits megabits, so that `900 MB/s` and `1.1 GB/s` are comparable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

KNOWN_UNITS = (
    "ns us ms s min h, B kB to TiB, bit to Gbit, ops pages and the like, also /s; ns/op; %"
)
_LONGEST_WORD = 64
LARGEST = 1e60  # the fourth powers of larger differences would overflow in the statistics


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number in base units; `is_time`: whether the unit is one of time, None without a unit.

    `unit` is the base unit, such as s or MB/s; empty without a unit.
    """

    value: float
    is_time: bool | None
    unit: str = field(default="", compare=False)


def _spellings(factor: float, words: str) -> dict[str, float]:
    return dict.fromkeys(words.split(), factor)


_TIMES = {
    **_spellings(1e-9, "ns nsec nsecs nanosecond nanoseconds"),
    **_spellings(1e-6, "us \u00b5s \u03bcs usec usecs microsecond microseconds"),
    **_spellings(1e-3, "ms msec msecs millisecond milliseconds"),
    **_spellings(1.0, "s sec secs second seconds"),
    **_spellings(60.0, "min mins minute minutes"),
    **_spellings(3600.0, "h hr hrs hour hours"),
}
# `elapsed_min` is a minimum, not a time in minutes.
_NO_SUFFIX = {"min", "mins", "h", "hr", "hrs", "\u00b5s", "\u03bcs"}
# Suffixes of a metric's name in keys of JSON objects: `elapsed_ms`.
TIME_SUFFIXES = {f"_{unit}": f for unit, f in _TIMES.items() if unit not in _NO_SUFFIX}

_COUNTED = (
    "op ops operation operations iter iters iteration iterations call calls req reqs request "
    "requests transaction transactions event events page pages fault faults cycle cycles "
    "instruction instructions loop loops message messages msg msgs packet packets pkt pkts"
)
_PLAIN = {
    **_spellings(1e-6, "B byte bytes Byte Bytes"),
    **_spellings(1e-3, "kB KB KByte KBytes kbytes"),
    **_spellings(1.0, "MB MByte MBytes"),
    **_spellings(1e3, "GB GByte GBytes"),
    **_spellings(1e6, "TB TByte TBytes"),
    **{unit: 2 ** (10 * power) / 1e6 for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)},
    **_spellings(1e-6, "bit bits"),
    **_spellings(1e-3, "kbit kbits Kbit Kbits"),
    **_spellings(1.0, "Mbit Mbits"),
    **_spellings(1e3, "Gbit Gbits"),
    **{
        f"{prefix}{word}": factor
        for prefix, factor in (("", 1.0), ("k", 1e3), ("K", 1e3), ("M", 1e6), ("G", 1e9))
        for word in _COUNTED.split()
    },
}
_RATES = {
    **_spellings(1.0, "% tps qps rps lps pps iops IOPS"),
    **{f"{p}bps": f for p, f in (("", 1e-6), ("k", 1e-3), ("K", 1e-3), ("M", 1.0), ("G", 1e3))},
    **_spellings(1.0, "MBps"),
    **_spellings(1e3, "GBps"),
}
_A_SECOND = ("s", "sec", "second")
_BIT_RATES = frozenset(f"{prefix}bps" for prefix in ("", "k", "K", "M", "G"))
_PREFIXED = re.compile(rf"[kKMG]?(?:{'|'.join(_COUNTED.split())})")

NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_START = re.compile(rf"({NUMBER})(.*)")
# Text allowed after a quantity: `(3 runs)`, `# warm`, `+- 1 ms`, and the next `name=…`.
_REMARK = re.compile(r"[(\[#\u00b1]|\+/?-|[A-Za-z_][\w.-]*[:=]")


def number(text: str) -> float | None:
    """Return the number if the text is only a number, else None."""
    is_number = len(text) <= _LONGEST_WORD and re.fullmatch(NUMBER, text)
    return float(text) if is_number else None


def quantity(text: str) -> Quantity | None:
    """Return the quantity at the start of a text, None if it is not valid.

    A comma, a remark in brackets or the next `name=…` may follow.
    """
    first, *rest = text.split(maxsplit=3)[:3] or [""]
    start = _START.fullmatch(first) if len(first) <= _LONGEST_WORD else None
    if start is None:
        return None
    unit, is_ended = _without_end(start[2])
    if not unit and not is_ended and rest:
        word, ended = _without_end(rest[0])
        bare = word.strip("()[]")
        if _factor(bare) is not None or not _REMARK.match(word):
            unit, is_ended = bare, ended
            rest = rest[1:]
    found = _factor(unit)
    if found is None or (rest and not _may_follow(rest[0], is_ended=is_ended)):
        return None
    factor, is_time = found
    return Quantity(float(start[1]) * factor, is_time, "s" if is_time else _base_unit(unit))


def _without_end(word: str) -> tuple[str, bool]:
    """Return a unit without its trailing punctuation, and whether that was a comma."""
    unit = word.rstrip(",;)")
    if unit[-1:] == "." and unit[:-1]:
        unit = unit[:-1]
    return unit, word.endswith((",", ";"))


def _may_follow(word: str, *, is_ended: bool) -> bool:
    if _REMARK.match(word):
        return True
    return is_ended and not word.lstrip("+-.")[:1].isdigit()


def _factor(unit: str) -> tuple[float, bool | None] | None:
    """Return a unit's factor to base units and whether it is a time; None if unknown."""
    if not unit:
        return 1.0, None
    time = _time(unit)
    if time is not None:
        return time, True
    if unit in _PLAIN or unit in _RATES:
        return (_PLAIN | _RATES)[unit], False
    top, slash, bottom = unit.partition("/")
    if slash and bottom in _A_SECOND and (not top or top in _PLAIN):
        return _PLAIN.get(top, 1.0), False
    if not slash or bottom not in _COUNTED.split():
        return None
    time = _time(top)
    if time is not None:
        return time, True
    return (_PLAIN[top], False) if top in _PLAIN else None  # cycles/op


def _base_unit(unit: str) -> str:
    """Return the unit that a known unit's values are converted to: MB/s for KiB/s."""
    top, slash, bottom = unit.partition("/")
    if _PREFIXED.fullmatch(top):
        top = top.lstrip("kKMG")
    elif top in _BIT_RATES:
        return "Mbit/s"
    elif top in ("MBps", "GBps"):
        return "MB/s"
    elif top in _PLAIN:
        top = "Mbit" if top.lower().endswith(("bit", "bits")) else "MB"
    return f"{top}{slash}{'s' if bottom in _A_SECOND else bottom}"


def _time(unit: str) -> float | None:
    # Short units are case-sensitive: Ms is not ms.
    return _TIMES.get(unit.lower() if len(unit) > 2 else unit)
