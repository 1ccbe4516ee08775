"""How repetitions depend on the CPU time that other processes used meanwhile. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from labctl.errors import UserError
from labctl.runs.sample import Sample
from labctl.stats.health import load_percent

# Bounds of the bins, shares of the available CPU time.
_BOUNDS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0)
_FEWEST = 3  # repetitions of a boot with a median that is not theirs
# Between these quantiles are two standard deviations of a normal distribution.
_LOW, _HIGH = 0.1587, 0.8413


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBin:
    """Repetitions during which others used a share of the CPU time in [`least`, `most`).

    `mean` and `median` are of the logarithm of a repetition over the median of its boot and
    setting; `sd` is half the distance of its 16 % and 84 % quantiles.
    """

    least: float
    most: float
    repetitions: int
    mean: float
    median: float
    sd: float


def bins(samples: Iterable[Sample]) -> list[LoadBin]:
    """Return the bins that have repetitions, by rising load.

    Raises:
        UserError: no boot has three successful repetitions with a known load.
    """
    boots: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for sample in samples:
        share = load_percent(sample.load).get("others_percent")
        if sample.warmup or share is None or sample.value is None or sample.value <= 0:
            continue
        key = (sample.run, sample.boot_id, sample.cell)
        boots.setdefault(key, []).append((share / 100, math.log(sample.value)))
    found: dict[int, list[float]] = {}
    for repetitions in boots.values():
        if len(repetitions) < _FEWEST:
            continue
        middle = median(value for _, value in repetitions)
        for share, value in repetitions:
            number = max(i for i, bound in enumerate(_BOUNDS[:-1]) if share >= bound)
            found.setdefault(number, []).append(value - middle)
    if not found:
        raise UserError(
            f"no boot has {_FEWEST} successful repetitions with a known host load",
            hint="measure with `repetitions: 3` or more, on guests",
        )
    ranges = list(pairwise(_BOUNDS))
    return [_bin(*ranges[number], sorted(found[number])) for number in sorted(found)]


def _bin(least: float, most: float, values: Sequence[float]) -> LoadBin:
    low, high = (values[int(quantile * len(values))] for quantile in (_LOW, _HIGH))
    return LoadBin(
        least=least,
        most=most,
        repetitions=len(values),
        mean=fmean(values),
        median=median(values),
        sd=(high - low) / 2,
    )
