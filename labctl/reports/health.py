"""The host's load during an experiment, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from labctl.stats.health_types import Seen
from labctl.stats.report_types import Experiment
from labctl.units import counted

_SHOWN = 6
_SEEN = {
    "others_percent": "other processes used {} of the CPU time",
    "steal_percent": "the hypervisor took {}",
    "cpu_pressure_percent": "a task waited for a CPU {} of the time",
    "memory_pressure_percent": "for memory {}",
}


def heading(experiment: Experiment) -> str:
    """Return a warning if disturbed blocks are used, else an empty text.

    It calls the host busy only if more than a few blocks are disturbed.
    """
    health = experiment.host_health
    if not health or health.left_out or not health.disturbed:
        return ""
    disturbed, blocks = len(health.disturbed), health.blocks
    busy = "the host was busy during the run: " if health.stays_loaded else ""
    was, it = ("was", "it is") if disturbed == 1 else ("were", "they are")
    return (
        f"{busy}{disturbed} of {counted(blocks, 'block')} {was} disturbed; {it} used, "
        f"{_because(blocks - disturbed)}"
    )


def counted_blocks(experiment: Experiment) -> str:
    """Return how many blocks count, and how many were left out as disturbed."""
    health = experiment.host_health
    blocks = f"{experiment.blocks} {'block counts' if experiment.blocks == 1 else 'blocks count'}"
    if not health or not health.left_out:
        return blocks
    return f"{blocks}; {len(health.disturbed)} of {health.blocks} are left out as disturbed"


def lines(experiment: Experiment) -> list[str]:
    """Return the lines below an experiment's table: host load and disturbed blocks."""
    health = experiment.host_health
    if not health:
        return []
    found = [_seen(health.seen)] if health.seen else []
    disturbed, blocks = health.disturbed, health.blocks
    if disturbed:
        was, is_ = ("was", "is") if len(disturbed) == 1 else ("were", "are")
        what = f"{is_} used, {_because(blocks - len(disturbed))}"
        if health.left_out:
            rest = blocks - len(disturbed)
            what = f"{is_} left out, {rest} {'counts' if rest == 1 else 'count'}"
        found.append(
            f"{len(disturbed)} of {counted(blocks, 'block')} {was} disturbed and {what} "
            f"({_each(disturbed)})"
        )
    return found


def _because(others: int) -> str:
    return "because too few others remain" if others else "because no others remain"


def _seen(seen: Mapping[str, Seen]) -> str:
    parts = [
        form.format(f"{_percent(seen[name].median)} (worst {_percent(seen[name].worst)})")
        for name, form in _SEEN.items()
        if name in seen
    ]
    frequency, throttled = seen.get("frequency_hz"), seen.get("throttled_count")
    if frequency:
        least = frequency.worst / 1e9
        parts.append(f"CPUs at {frequency.median / 1e9:.2f} GHz (least {least:.2f})")
    else:
        parts.append("the CPU frequency is unknown")
    if throttled:
        slowed = "" if throttled.worst else "not "
        parts.append(f"{slowed}slowed for heat")
    return "host load (median over repetitions): " + ", ".join(parts)


def _percent(value: float) -> str:
    return f"{value:.2g} %" if value < 10 else f"{value:.0f} %"


def _each(disturbed: Mapping[str, str]) -> str:
    shown = [f"block {block}: {why}" for block, why in list(disturbed.items())[:_SHOWN]]
    more = len(disturbed) - len(shown)
    return "; ".join([*shown, *([f"and {more} more"] if more else [])])
