"""Blocks disturbed by host load, by a rule that is blind to results. Pure.

A sample's `load` is the host load during its repetition. The rule is fixed before a
run, stored in its record, and uses only the load: neither the measured value nor the
kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from msgspec import UNSET

from labctl.runs.record import RunRecord
from labctl.runs.sample import Sample
from labctl.stats.paired import MINIMUM_BLOCKS

# What a hypervisor or waiting for memory takes is missing from a repetition. Of the guest's CPU
# time 5 % is as much as repetitions of one boot differ anyway.
DISTURBED_SHARE = 0.05
# Other processes mostly use what the guests leave. Up to this share, repetitions are neither
# measurably longer than others of their boot nor vary more: docs/explanation/methodology.md.
OTHERS_SHARE = 0.15
# The kernel's times have a resolution of 10 ms, and a share is computed from nine of them.
_RESOLUTION_SECONDS = 0.05
# At most a quarter of the planned blocks is measured again. A host that is busy for
# longer is reported instead.
_LEAST_EXTRA, _EXTRA_DIVISOR = 2, 4


@dataclass(frozen=True, slots=True)
class HealthRule:
    """The shares from which on host load disturbs a repetition; 0.05 is 5 %.

    `others_share` is of the available CPU time used by other processes. `disturbed_share` is
    of the CPU time stolen by the hypervisor, and of the wall time with memory pressure.
    """

    disturbed_share: float = DISTURBED_SHARE
    others_share: float = OTHERS_SHARE

    @classmethod
    def of(cls, record: RunRecord) -> HealthRule:
        """Return the rule in a run's record; the default if an old run has none.

        Older runs have one share for all.
        """
        share, others = record.health.disturbed_share, record.health.others_share
        if share is UNSET:
            return cls()
        return cls(share, share if others is UNSET else others)

    def as_dict(self) -> dict[str, float]:
        """Return the rule as stored in a run's record."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Health:
    """The host load during an experiment.

    `blocks` is the number of measured blocks, `disturbed` maps disturbed blocks to the
    reason. They are `left_out` if enough other blocks remain; otherwise all blocks are
    used. The host `stays_loaded` if more blocks are disturbed than a run measures again,
    or most of them. `seen` has median and worst of each quantity over the repetitions.
    """

    blocks: int
    disturbed: Mapping[int, str]
    left_out: tuple[int, ...]
    stays_loaded: bool
    seen: Mapping[str, tuple[float, float]]


def disturbance(load: Mapping[str, float], rule: HealthRule) -> str:
    """Return how the host disturbed a repetition, an empty string if it did not.

    A load without `own_seconds`, from an older run, never counts as disturbed.
    """
    shares = load_percent(load)
    causes = {
        "others_percent": ("other processes used", rule.others_share),
        "steal_percent": ("the hypervisor took", rule.disturbed_share),
    }
    found = [
        f"{text} {shares[name]:.0f} % of the CPU time"
        for name, (text, share) in causes.items()
        if shares.get(name, 0.0) >= 100 * share
    ]
    waited = shares.get("memory_pressure_percent", 0.0)
    if waited >= 100 * rule.disturbed_share:
        found.append(f"tasks waited for memory {waited:.0f} % of the time")
    if load.get("throttled_count", 0.0) > 0:
        found.append("a core was thermally throttled")
    if slept := _slept_seconds(load):
        found.append(f"the host was suspended for {slept:.0f} s")
    return ", ".join(found)


def disturbed_blocks(samples: Iterable[Sample]) -> dict[int, str]:
    """Return the disturbed blocks, each with the reason.

    A block is disturbed if at least half of the repetitions of any cell are: below
    that, the cell's mean in the block is robust. Warm-ups do not count. A block in which
    the host slept is disturbed: clocks, caches and temperatures are others after it.
    """
    samples = list(samples)
    if not any(sample.disturbed for sample in samples):
        return {}  # the usual case; there may be a million samples
    cells: dict[tuple[int, str], list[Sample]] = {}
    for sample in samples:
        if not sample.warmup:
            cells.setdefault((sample.block, sample.cell), []).append(sample)
    found: dict[int, Sample] = {}
    for (block, _), repetitions in sorted(cells.items()):
        disturbed = [sample for sample in repetitions if sample.disturbed]
        has_slept = any(_slept_seconds(sample.load) for sample in disturbed)
        if has_slept or 2 * len(disturbed) >= len(repetitions):
            found[block] = max([*disturbed, *filter(None, [found.get(block)])], key=_severity)
    return {block: sample.disturbed for block, sample in found.items()}


def extra_blocks(disturbed: int, planned: int) -> int:
    """Return the number of blocks that replace disturbed ones, limited to a few.

    0 if too few blocks are planned for a verdict.
    """
    if planned < MINIMUM_BLOCKS:
        return 0
    return min(disturbed, _most_extra(planned))


def _most_extra(planned: int) -> int:
    return max(_LEAST_EXTRA, planned // _EXTRA_DIVISOR)


def _stays_loaded(disturbed: int, blocks: int, least_blocks: int) -> bool:
    is_much = disturbed > _most_extra(least_blocks) or 2 * disturbed > blocks
    return disturbed > 1 and is_much


def usable(samples: Sequence[Sample], least_blocks: int) -> tuple[list[Sample], Health]:
    """Return the samples of one experiment that count, and what the host did.

    The disturbed blocks are left out, all of them or none: none if fewer than
    `least_blocks` would stay.
    """
    disturbed = disturbed_blocks(samples)
    blocks = {sample.block for sample in samples}
    has_enough = len(blocks) - len(disturbed) >= least_blocks
    left_out = tuple(disturbed) if has_enough else ()
    health = Health(
        blocks=len(blocks),
        disturbed=disturbed,
        left_out=left_out,
        stays_loaded=not has_enough and _stays_loaded(len(disturbed), len(blocks), least_blocks),
        seen=_seen(samples),
    )
    if not left_out:
        return list(samples), health
    return [sample for sample in samples if sample.block not in left_out], health


def load_percent(load: Mapping[str, float]) -> dict[str, float]:
    """Return the load of a repetition in percent; nothing if an old labctl recorded it."""
    wall = load.get("wall_seconds", 0.0)
    available = wall * load.get("cores", 0.0)
    if not available or "own_seconds" not in load:
        return {}
    lost = {
        "others_percent": load["busy_seconds"] - load["own_seconds"],
        "steal_percent": load["steal_seconds"],
    }
    found = {
        name: 100 * max(0.0, seconds - _RESOLUTION_SECONDS) / available
        for name, seconds in lost.items()
    }
    for what in ("cpu", "memory"):
        if f"{what}_pressure_seconds" in load:
            found[f"{what}_pressure_percent"] = 100 * load[f"{what}_pressure_seconds"] / wall
    return found


def _slept_seconds(load: Mapping[str, float]) -> float:
    seconds = load.get("suspended_seconds", 0.0)
    return seconds if seconds >= _RESOLUTION_SECONDS else 0.0


def _severity(sample: Sample) -> float:
    if _slept_seconds(sample.load):
        return math.inf
    return max(load_percent(sample.load).values(), default=0.0)


def _seen(samples: Iterable[Sample]) -> dict[str, tuple[float, float]]:
    values: dict[str, list[float]] = {}
    for sample in samples:
        if sample.warmup or not sample.load:
            continue
        found = load_percent(sample.load)
        if found:
            own = {n: sample.load[n] for n in _AS_THEY_ARE if n in sample.load}
            for name, value in (found | own).items():
                values.setdefault(name, []).append(value)
    return {name: (median(each), _WORST.get(name, max)(each)) for name, each in values.items()}


_AS_THEY_ARE = ("frequency_hz", "throttled_count")
_WORST: Mapping[str, Callable[[Iterable[float]], float]] = {"frequency_hz": min}
