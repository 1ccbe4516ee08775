"""Derive from a metric's name whether it is a time, of which less is better. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Better = Literal["lower", "higher"]
Scale = Literal["ratio", "difference"]
DEFAULT = "elapsed"
WALL_TIME = "wall_time"  # measured by labctl: the run time of the command
# Printed by freebench as `<name>_nanoseconds`.
FREEBENCH_TIMES = frozenset({"elapsed", "cpu", "other_cpu", "populate", "memory_back"})
_TIME_WORDS = frozenset(
    {"elapsed", "time", "latency", "duration", "wall", "real", "walltime", "runtime"}
)
_TIME_UNITS = frozenset(
    {f"{prefix}second{s}" for prefix in ("nano", "micro", "milli") for s in ("", "s")}
    | {"seconds"}
    | {f"{prefix}{sec}" for prefix in "num" for sec in ("s", "sec", "secs")}
)
# As a suffix these may also mean "per second": ops_s, pages_second.
_SHORT_UNITS = frozenset({"s", "sec", "secs", "second"})
_NOT_SPEED = frozenset({"cpu", "latency"})
_WORDS_OF_VERDICTS = {"faster": "better", "slower": "worse"}


def is_time(metric: str, command: str = "") -> bool:
    """Return whether a metric is a time, so that less of it is better.

    A metric is a time if its name ends in a word for a time (`elapsed`, `latency`),
    optionally followed by a unit of time, or in a unit of time (`_ns`, `_seconds`; not `_s`,
    `_second` or `per_second`), or if `command` is freebench and prints it as a time.
    """
    words = _words(metric)
    if "per" in words:
        return False
    if is_freebench(command) and _without_unit(metric) in FREEBENCH_TIMES:
        return True
    last, before = words[-1], words[-2:-1]
    if last in _TIME_WORDS or (len(words) > 1 and last in _TIME_UNITS):
        return True
    return last in _SHORT_UNITS and bool(_TIME_WORDS.intersection(before))


def is_freebench(command: str) -> bool:
    """Return whether a workload's command is freebench."""
    return PurePosixPath((command.split() or [""])[0]).name == "freebench"


def better_of(metric: str, command: str, given: Better | None) -> Better | None:
    """Return the direction: as given, or derived from the metric's name; None if unknown."""
    return given or ("lower" if is_time(metric, command) else None)


@dataclass(frozen=True, slots=True)
class MetricKind:
    """A metric with the properties that its wording in reports depends on."""

    name: str = DEFAULT
    better: Better = "lower"
    command: str = "freebench"
    scale: Scale = "ratio"
    unit: str = ""  # of its values if it is not a time, empty if unknown

    @classmethod
    def known(
        cls,
        name: str | None,
        better: Better | None,
        command: str | None,
        scale: Scale | None = None,
        unit: str | None = None,
    ) -> MetricKind:
        """Return the metric that a record names.

        Records of older versions lack these fields; they measured freebench's time, as ratios.
        """
        known = name or DEFAULT, better or "lower", command or "freebench", scale or "ratio"
        return cls(*known, unit or "")

    @property
    def is_difference(self) -> bool:
        """Whether kernels are compared by differences of its values, not by ratios."""
        return self.scale == "difference"

    @property
    def root(self) -> str:
        """The name without a unit."""
        return _without_unit(self.name)

    @property
    def is_time(self) -> bool:
        """Whether its values are seconds."""
        return is_time(self.name, self.command)

    @property
    def value_unit(self) -> str:
        """The unit of its values: s for times, empty if unknown."""
        return "s" if self.is_time else self.unit

    @property
    def is_elapsed(self) -> bool:
        """Whether it is the elapsed time of the operation, of which less is better."""
        return self.root == DEFAULT and self.better == "lower"

    @property
    def is_speed(self) -> bool:
        """Whether less of it means faster."""
        words = _NOT_SPEED.intersection(_words(self.name))
        return self.is_time and self.better == "lower" and not words and not self.is_difference

    def spoken(self, verdict: str) -> str:
        """Return a verdict in words: better or worse if the metric is not a speed."""
        return verdict if self.is_speed else _WORDS_OF_VERDICTS.get(verdict, verdict)

    def formula(self, baseline: str) -> str:
        """Return the formula of a ratio or a difference, in words."""
        what = "time" if self.is_elapsed else self.name
        if self.is_difference:
            return f"{what} minus {what} of {baseline}"
        if self.better == "higher":
            return f"{what} over {what} of {baseline}"
        return f"{what} of {baseline} over {what}"


ELAPSED = MetricKind()


def _words(metric: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", metric.lower())


def _without_unit(metric: str) -> str:
    head, _, last = metric.rpartition("_")
    return head if head and last in _TIME_UNITS | _SHORT_UNITS else metric
