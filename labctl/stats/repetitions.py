"""The number of repetitions per boot that makes intervals narrow soonest. Pure.

Few repetitions waste boots and warm-ups, many measure the same boot again and again. The best
number follows from the spread within and between boots, and from the time that a block takes
without its repetitions, all of which the finished blocks of a run show.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from labctl.lab.metrics import Scale
from labctl.runs.sample import Sample
from labctl.stats.cells import bases_for, cells_of, primary
from labctl.stats.compare import differences_on_hosts, roles
from labctl.stats.over_hosts import by_host, variance_within
from labctl.stats.stopping import CONTROL_FACTOR
from labctl.stats.verdict import strict

if TYPE_CHECKING:
    import numpy as np

# Repetitions until two blocks show what more would cost and gain, and never less: with one or
# two, streaks of slow boots are hidden by the noise within boots, and intervals too narrow.
FIRST = 3
_BOOT = "boot_seconds"  # in a sample's load: of its block until then
_RENEWED = (2, 4, 8, 16)  # blocks after which the number is chosen anew
MOST = 15
_BOOTS = 1.5  # a cell's boot, and two of its baseline, with half of the weight each
# The spread between boots of few blocks may come out as 0, with which no number is too many.
_LEAST_BETWEEN = 1 / 16  # of the variance within boots


@dataclass(frozen=True, slots=True)
class Goal:
    """What a run's intervals are measured for; `half_width` is on the log scale, None if none."""

    confidence: float
    half_width: float | None
    blocks_min: int


def best(
    within: Any,  # noqa: ANN401
    between: Any,  # noqa: ANN401
    *,
    fixed_seconds: Any,  # noqa: ANN401
    round_seconds: Any,  # noqa: ANN401
    goal: Goal,
) -> np.ndarray:
    """Return the number of repetitions with which the goal is reached soonest, of 3 to 15.

    `within` is the variance of repetitions of a boot, `between` that of boots, of logs;
    `fixed_seconds` is the time of a block without repetitions, so of boots and warm-ups,
    `round_seconds` that of one repetition of each cell. Without a half-width, it is the number
    with the least variance at equal time (T. Kalibera and R. Jones, "Rigorous Benchmarking in
    Reasonable Time", ISMM 2013). Takes numbers, or arrays of one shape.
    """
    import numpy as np
    from scipy.special import ndtri

    numbers = np.arange(FIRST, MOST + 1)
    within, between, fixed, each = (
        np.asarray(value, dtype=float)[..., None]
        for value in (within, between, fixed_seconds, round_seconds)
    )
    variance = _BOOTS * (np.maximum(between, _LEAST_BETWEEN * within) + within / numbers)
    blocks = variance
    if goal.half_width is not None:
        quantile = float(ndtri((1 + strict(goal.confidence)) / 2))
        needed = variance * (quantile / goal.half_width) ** 2
        # Student's quantile exceeds the normal one as if there were two blocks less.
        blocks = np.maximum(needed + 2, goal.blocks_min)
    found: np.ndarray = numbers[np.argmin(blocks * (fixed + each * numbers), axis=-1)]
    return found


def is_renewed(blocks: int) -> bool:
    """Return whether the number of repetitions is chosen anew after this number of blocks."""
    return blocks in _RENEWED


def between(variance: Any, within: Any, *, inverse: Any, freedom: float) -> Any:  # noqa: ANN401
    """Return the variance of boots, from that of log ratios; takes numbers, or arrays.

    `variance` is that of log ratios with the mean of two boots and has `freedom` degrees of
    freedom, `inverse` is the mean of the inverse number of repetitions. As long as few blocks
    are known, only what clearly exceeds the spread of repetitions counts, since too few
    repetitions cost more than too many.
    """
    import numpy as np

    error = math.sqrt(2 / freedom)  # of a variance, relative to it
    return np.maximum(variance / (1 + error) / _BOOTS - within * inverse, 0.0)


def chosen(samples: Sequence[Sample], *, baseline: str, goal: Goal, scale: Scale = "ratio") -> int:
    """Return the number of repetitions for the next block of an experiment.

    `samples` are those of its finished blocks. The choice uses times and spreads, never the
    difference between kernels. 3 before the second block is finished; chosen anew after 2, 4,
    8 and 16 blocks.
    """
    numbers = sorted({sample.block for sample in samples})
    used = max((count for count in _RENEWED if count <= len(numbers)), default=0)
    known = set(numbers[:used])
    samples = [sample for sample in samples if sample.block in known]
    costs, variances = _costs(samples), _variances(samples, baseline, scale)
    if costs is None or variances is None:
        return FIRST
    fixed, each = costs
    within, between = variances
    if not within:  # nothing, or hardly more than equal values: no spread to judge by
        return FIRST
    return int(best(within, between, fixed_seconds=fixed, round_seconds=each, goal=goal))


def _costs(samples: Sequence[Sample]) -> tuple[float, float] | None:
    """Return the seconds of a block without its repetitions, and of one repetition of each cell.

    Repetitions and warm-ups take the time until the next one begins, all as medians, so that
    an interruption of the run does not count. None without a record of the time of boots.
    """
    blocks: dict[int, list[tuple[float, Sample]]] = {}
    for sample in samples:
        began = datetime.fromisoformat(sample.started_at).timestamp()
        blocks.setdefault(sample.block, []).append((began, sample))
    gaps: dict[bool, list[float]] = {False: [], True: []}
    for each in blocks.values():
        each.sort(key=lambda pair: pair[0])
        for (began, sample), (later, _) in pairwise(each):
            gaps[sample.warmup].append(later - began)
    boots = [max(s.load.get(_BOOT, 0.0) for _, s in each) for each in blocks.values()]
    seconds = median(gaps[False] or [0.0])
    if not any(boots) or seconds <= 0:
        return None
    # A block that was interrupted has more of them.
    warmups = min(sum(sample.warmup for _, sample in each) for each in blocks.values())
    cells = {sample.cell for _, sample in blocks[max(blocks)] if not sample.warmup}
    return median(boots) + warmups * median(gaps[True] or [0.0]), seconds * len(cells)


def _variances(
    samples: Sequence[Sample], baseline: str, scale: Scale
) -> tuple[float, float] | None:
    """Return the variance of repetitions of a boot, and of boots, on the metric's scale."""
    baselines, controls, others = cells = roles(cells_of(samples, scale), baseline)
    within = [cell.spread(primary) ** 2 for each in cells for cell in each if cell.count(primary)]
    of_d, freedom = [], 0
    for cell in (*others, *controls):
        bases = bases_for(cell, baselines, controls)
        groups = by_host(*differences_on_hosts(cell, bases, primary, "lower"))
        own = sum(map(len, groups.values())) - len(groups)
        if own:
            of_d.append(variance_within(groups) * (CONTROL_FACTOR**2 if cell.is_control else 1))
            freedom += own
    counts = Counter((s.cell, s.block) for s in samples if not s.warmup)
    if not within or not of_d:
        return None
    mean = fmean(within)
    inverse = fmean(1 / count for count in counts.values())
    return mean, between(fmean(of_d), mean, inverse=inverse, freedom=freedom)
