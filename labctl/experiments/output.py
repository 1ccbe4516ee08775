"""The metric in a workload's output: a key of a JSON object, or a line `name: number unit`."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from typing import Any

from labctl.errors import BadOutput
from labctl.experiments.json_output import last_object
from labctl.experiments.number_faults import fault, why_no_number
from labctl.lab.metrics import Scale, is_time
from labctl.lab.quantity import LARGEST, TIME_SUFFIXES, Quantity, number, quantity
from labctl.units import MIB, quote, rough_size

_LONGEST_OUTPUT = 8 * MIB
_SEEN_CHARACTERS = 60
# CPU time summed over several CPUs can exceed the wall time.
_CPU_TIMES = frozenset(["cpu", "user", "sys", "system", "utime", "stime", "cputime"])
_TASK_CLOCK = {"task", "clock"}  # perf's
# The guest's agent measures the command with CLOCK_MONOTONIC of the same kernel, which
# includes the workload's own time; over SSH the resolution is 10 ms at each end. Other
# clocks (REALTIME slewed by NTP, the time-stamp counter as calibrated under TCG) differ by
# less than 1 %.
_CLOCKS_DIFFER = 0.02
_TICKS_SECONDS = 0.02


def measure(
    text: str,
    metric: str,
    *,
    took_seconds: float | None = None,
    cpus: int | None = None,
    scale: Scale = "ratio",
) -> tuple[Quantity, dict[str, Any]]:
    """Return the metric's value with its unit, and all values that the workload printed.

    The last JSON object on separate lines is used; without one, the last line with the
    metric's name, a number and an optional unit; else a last line with only a number.
    Times become seconds, sizes megabytes.

    `took_seconds` is the run time of the command in the guest. A longer time is rejected,
    since its unit must be wrong. CPU time may be `cpus` times as long, or any time if
    `cpus` is unknown.

    Raises:
        BadOutput: the metric is missing, is not a finite number in a known unit, is not
            above 0 where ratios are compared, or is longer than the command took.
    """
    check_length(text)
    measurements = last_object(text)
    if measurements is not None:
        found = _field(measurements, metric)
    else:
        measurements = {}
        found = _plain(text, metric)
    check_value(found, metric, took_seconds=took_seconds, cpus=cpus, scale=scale)
    return found, measurements


def check_length(text: str) -> None:
    """Raise BadOutput if the output is too long to be read."""
    if len(text) > _LONGEST_OUTPUT:
        raise BadOutput(
            f"workload output is {rough_size(len(text))} long; at most "
            f"{rough_size(_LONGEST_OUTPUT)} are read"
        )


def check_value(
    found: Quantity,
    metric: str,
    *,
    took_seconds: float | None,
    cpus: int | None,
    scale: Scale = "ratio",
) -> None:
    """Raise BadOutput if a value cannot be compared, or is longer than the command took."""
    if not math.isfinite(found.value) or abs(found.value) > LARGEST:
        raise BadOutput(f"{metric}: expected a number of at most {LARGEST:g}, got {found.value:g}")
    if scale == "ratio" and found.value <= 0:
        raise BadOutput(
            f"{metric}: expected a number above 0, got {found.value:g}; a metric that may be zero "
            "or negative needs `scale: difference`"
        )
    if took_seconds is not None:
        _check_duration(found, metric, took_seconds, cpus)


def _field(measurements: dict[str, Any], metric: str) -> Quantity:
    key = next((k for k in (metric + s for s in ("", *TIME_SUFFIXES)) if k in measurements), None)
    if key is None:
        names = ", ".join(sorted(measurements))
        has = f"keys: {quote(names, 100)}" if names else "it is empty"
        raise BadOutput(
            f"the workload's last JSON object has no top-level key {quote(metric)} ({has})"
        )
    value = measurements[key]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadOutput(
            f"{key}: expected a JSON number, got {quote(json.dumps(value), _SEEN_CHARACTERS)}"
        )
    # The metric's name may end in its unit, but `requests_per_second` is not a time.
    is_named = key != metric or is_time(metric)
    suffix = next((s for s in TIME_SUFFIXES if key.endswith(s)), None) if is_named else None
    factor = TIME_SUFFIXES.get(suffix or "", 1.0)
    # `_s` may also mean "per second": ops_s.
    if factor == 1.0:
        return Quantity(float(value), is_time=None)
    return Quantity(float(value) * factor, is_time=True, unit="s")


def _plain(text: str, metric: str) -> Quantity:
    named = re.compile(
        rf"(?<![\w.-]){re.escape(metric)}"
        r"(?:[ \t]*[:=][ \t]*(?=[^\s])|[ \t]+(?=[-+]?\.?[0-9]))"
    )
    found_last = deque(named.finditer(text), maxlen=1)
    if found_last:
        last = found_last[0]
        line = re.compile(r"[^\r\n]*").match(text, last.end())
        first = line[0] if line else ""
        found = quantity(first)
        if found is None:
            raise BadOutput(f"{metric}: {fault(first)}")
        return found
    line_of_end = text.rstrip().rpartition("\n")[2].rpartition("\r")[2].strip()
    alone = number(line_of_end)
    if alone is None:
        end = f"; last line: {quote(line_of_end, _SEEN_CHARACTERS)}" if line_of_end else ""
        why = why_no_number(line_of_end)
        raise BadOutput(
            f"the workload did not print {metric!r}: expected a JSON object, a line "
            f"`{metric}: NUMBER UNIT` or a last line with only a number{end}"
            + (f" ({why})" if why else "")
        )
    return Quantity(alone, is_time=None)


def _check_duration(found: Quantity, metric: str, took_seconds: float, cpus: int | None) -> None:
    words = set(metric.lower().split("_"))
    is_cpu_time = bool(words & _CPU_TIMES) or words >= _TASK_CLOCK
    shows_time = is_time(metric) if found.is_time is None else found.is_time
    if not shows_time or (is_cpu_time and cpus is None):
        return
    parallel = cpus if is_cpu_time and cpus is not None else 1
    limit = parallel * took_seconds * (1 + _CLOCKS_DIFFER) + _TICKS_SECONDS
    if found.value > limit:
        whole = "the command" + (f" on {parallel} CPUs" if is_cpu_time else "")
        raise BadOutput(
            f"{metric} is {found.value:.6g} s, longer than {whole} ran ({took_seconds:.6g} s): "
            "check its unit (none means seconds). For another kind of time, such as a sum over "
            "threads, use a metric name that is not a time, and no unit"
        )
