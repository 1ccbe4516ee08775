"""What a workload printed, as a number: a field of a JSON line, or any `name: number unit`."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from labctl.errors import BadOutput

_SECONDS = {
    "nanoseconds": 1e-9,
    "ns": 1e-9,
    "microseconds": 1e-6,
    "us": 1e-6,
    "milliseconds": 1e-3,
    "ms": 1e-3,
    "seconds": 1.0,
    "s": 1.0,
    "sec": 1.0,
}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def measure(text: str, metric: str) -> tuple[float, dict[str, Any]]:
    """Return the metric's value, and all that the workload measured.

    The last JSON object on a line of its own wins; without one, the last line
    that names the metric followed by a number and perhaps a unit; without that,
    a last line that is a number alone. Times become seconds.

    Raises:
        BadOutput: the metric is not there, or is not a finite positive number.
    """
    measurements = _json_line(text)
    if measurements is not None:
        value = _field(measurements, metric)
    else:
        measurements = {}
        value = _plain(text, metric)
    if value is None:
        names = ", ".join(sorted(measurements)) or "no JSON line"
        raise BadOutput(f"the workload did not print {metric!r} (it printed: {names})")
    if not math.isfinite(value) or value <= 0:
        raise BadOutput(f"{metric} is {value:g}; a ratio needs a positive number")
    return value, measurements


def _json_line(text: str) -> dict[str, Any] | None:
    for line in reversed(text.splitlines()):
        if line.lstrip().startswith("{"):
            try:
                content = json.loads(line)
            except ValueError:
                continue
            if isinstance(content, dict):
                return content
    return None


def _field(measurements: dict[str, Any], metric: str) -> float | None:
    for unit, factor in {"": 1.0, **{f"_{unit}": f for unit, f in _SECONDS.items()}}.items():
        value = measurements.get(metric + unit)
        if isinstance(value, int | float) and not isinstance(value, bool):
            # The metric's own name may end in its unit.
            own = next((f for u, f in _SECONDS.items() if metric.endswith(f"_{u}")), 1.0)
            return float(value) * (factor if unit else own)
    return None


def _plain(text: str, metric: str) -> float | None:
    named = re.compile(
        rf"(?<![\w.]){re.escape(metric)}(?:[ \t]*[:=][ \t]*|[ \t]+)({_NUMBER})[ \t]*([a-zA-Z]*)"
    )
    found = list(named.finditer(text))
    if found:
        return float(found[-1][1]) * _SECONDS.get(found[-1][2], 1.0)
    lines = text.split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return float(last) if re.fullmatch(_NUMBER, last) else None
