"""What the host did while an experiment was measured, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHOWN = 6
_SEEN = {
    "others_percent": "others took {} of its CPU time",
    "steal_percent": "the hypervisor {}",
    "cpu_pressure_percent": "a task waited for a CPU {} of the time",
    "memory_pressure_percent": "for memory {}",
}


def heading(experiment: Mapping[str, Any]) -> str:
    """Return what stands above everything if the host stayed loaded, else an empty text."""
    health = experiment.get("host_health")
    if not health or not health["stays_loaded"]:
        return ""
    disturbed, blocks = health["disturbed"], health["blocks"]
    return (
        f"the host stayed loaded: {len(disturbed)} of {blocks} blocks were disturbed, too many "
        "to leave out; all are used as they are"
    )


def lines(experiment: Mapping[str, Any]) -> list[str]:
    """Return what stands below an experiment's table: what was seen, what was left out."""
    health = experiment.get("host_health")
    if not health:
        return []
    found = [_seen(health["seen"])] if health["seen"] else []
    disturbed, blocks = health["disturbed"], health["blocks"]
    if disturbed:
        what = "and used as they are, for too few others are there"
        if health["left_out"]:
            what = f"and are left out, {blocks - len(disturbed)} count"
        found.append(
            f"{len(disturbed)} of {blocks} blocks were disturbed {what} ({_each(disturbed)})"
        )
    return found


def _seen(seen: Mapping[str, Mapping[str, float]]) -> str:
    parts = [
        form.format(f"{_percent(seen[name]['median'])} (worst {_percent(seen[name]['worst'])})")
        for name, form in _SEEN.items()
        if name in seen
    ]
    frequency, throttled = seen.get("frequency_hz"), seen.get("throttled_count")
    if frequency:
        least = frequency["worst"] / 1e9
        parts.append(f"CPUs at {frequency['median'] / 1e9:.2f} GHz (least {least:.2f})")
    else:
        parts.append("the CPUs' frequency is not shown here")
    if throttled:
        slowed = "" if throttled["worst"] else "not "
        parts.append(f"{slowed}slowed for heat")
    return "host meanwhile (median over repetitions): " + ", ".join(parts)


def _percent(value: float) -> str:
    return f"{value:.2g} %" if value < 10 else f"{value:.0f} %"


def _each(disturbed: Mapping[str, str]) -> str:
    told = [f"block {block}: {why}" for block, why in list(disturbed.items())[:_SHOWN]]
    more = len(disturbed) - len(told)
    return "; ".join([*told, *([f"and {more} more"] if more else [])])
