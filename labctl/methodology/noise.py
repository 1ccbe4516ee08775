"""Noise models of measured times: for simulations, and estimated from a stored run. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from labctl.errors import UserError
from labctl.lab.metrics import Scale
from labctl.lab.statistics import Statistics
from labctl.runs.record import RunRecord
from labctl.runs.sample import Sample
from labctl.stats.cells import OUTLIER_SDS, cells_of
from labctl.stats.run_noise import RUN_SD
from labctl.status import SampleStatus

if TYPE_CHECKING:
    import numpy as np

_BURN_IN = 100  # repetitions until the drift is independent of its start
_UNCORRELATED = 0.05  # correlation below which the drift counts as independent
_MOST_CORRELATED = 0.999
_BASELINES = 2  # the first cells are the baseline and its A/A control


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """A noise model; standard deviations are of the logs of times.

    The drift is an AR(1) process over the repetitions in order of time, with standard
    deviation `drift_sd` and lag-1 correlation `drift_memory`. The first repetition of a
    boot takes longer by `first_repetition` (0.1 is 10 %). `outliers` is the probability
    that a repetition takes `outlier_factor` times as long, `spoilt_boots` that all
    repetitions of a boot do, `streak` the number of blocks in a row for which a boot of a cell
    is spoilt. With `shared_boots`, the compared cells share their boots. `run_sd` is the
    standard deviation of a ratio between runs; see `stats.run_noise`.

    With `events`, a repetition counts events (a Poisson process with this mean, times what would
    else be a time), which are compared by differences; `least_events` is the minimum effect.
    """

    name: str
    boot_sd: float = 0.015
    repetition_sd: float = 0.04
    first_repetition: float = 0.0
    drift_sd: float = 0.0
    drift_memory: float = 0.9
    outliers: float = 0.0
    spoilt_boots: float = 0.0
    outlier_factor: float = 1.3
    streak: int = 1
    shared_boots: bool = False
    run_sd: float = 0.0
    events: float = 0.0
    least_events: float = 1.0

    @property
    def scale(self) -> Scale:
        """How cells are compared."""
        return "difference" if self.events else "ratio"


# The figures of quiet-host were measured in guests that freed 3 GiB by exit and munmap, those
# of busy-host with 256 MiB on a busy host. The others are worse than any measurement.
NOISES = (
    Noise(name="quiet-host"),
    Noise(name="calm-host", boot_sd=0.003, repetition_sd=0.008),
    Noise(name="noisy-host", repetition_sd=0.06, boot_sd=0.0225),
    Noise(name="drift", drift_sd=0.05),
    Noise(name="slow-repetitions", outliers=0.05),
    Noise(name="slow-boots", spoilt_boots=0.1, drift_sd=0.02),
    Noise(
        name="busy-host",
        repetition_sd=0.15,
        boot_sd=0.2,
        first_repetition=0.1,
        drift_sd=0.1,
        drift_memory=0.98,
    ),
    Noise(name="shared-boots", boot_sd=0.03, shared_boots=True),
    Noise(name="streaks", spoilt_boots=0.1, streak=4),
    Noise(name="between-runs", run_sd=RUN_SD),
    Noise(name="counts", events=20, least_events=2, boot_sd=0.1, repetition_sd=0),
    Noise(name="rare-events", events=0.2, least_events=0.15, boot_sd=0.1, repetition_sd=0),
    Noise(name="bursts", events=5, least_events=2, boot_sd=0.7, repetition_sd=0),
)


def times(
    noise: Noise, draw: np.random.Generator, shape: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the logs of simulated times, and the position of each in the measuring order.

    Instead of logs, counts are returned in a unit in which their minimum effect is the usual one.
    `shape` is (runs, blocks, repetitions, cells). Each repetition of a block measures all
    cells, in a new random order.
    """
    import numpy as np

    logs = draw.normal(0, noise.repetition_sd, shape)
    logs += math.log(noise.outlier_factor) * (draw.random(shape) < noise.outliers)
    logs[:, :, 0] += math.log1p(noise.first_repetition)
    boots = (*shape[:2], 1, shape[3])
    of_boots = draw.normal(0, noise.boot_sd, boots)
    of_boots += math.log(noise.outlier_factor) * _spoilt(noise, draw, boots)
    if noise.shared_boots:
        of_boots[..., _BASELINES:] = of_boots[..., _BASELINES : _BASELINES + 1]
    logs += of_boots
    order = draw.random(shape).argsort(axis=3)
    if noise.drift_sd:
        logs += np.take_along_axis(drift(noise, draw, shape), order, axis=3)
    if not noise.events:
        return logs, order
    counts = draw.poisson(noise.events * np.exp(logs))
    return counts * math.log1p(Statistics().minimum_effect) / noise.least_events, order


def _spoilt(
    noise: Noise, draw: np.random.Generator, boots: tuple[int, int, int, int]
) -> np.ndarray:
    """Return which boots are spoilt: those of `streak` blocks from a start on."""
    import numpy as np

    runs, blocks, one, cells = boots
    start = 1 - (1 - noise.spoilt_boots) ** (1 / noise.streak)
    starts = draw.random((runs, blocks + noise.streak - 1, one, cells)) < start
    found: np.ndarray = np.zeros(boots, dtype=bool)
    for first in range(noise.streak):
        found |= starts[:, first : first + blocks]
    return found


def drift(noise: Noise, draw: np.random.Generator, shape: tuple[int, int, int, int]) -> np.ndarray:
    from scipy.signal import lfilter

    sd = noise.drift_sd * math.sqrt(1 - noise.drift_memory**2)
    steps = draw.normal(0, sd, (shape[0], _BURN_IN + math.prod(shape[1:])))
    series: np.ndarray = lfilter([1.0], [1.0, -noise.drift_memory], steps, axis=1)
    return series[:, _BURN_IN:].reshape(shape)


def estimate(samples: Sequence[Sample], *, name: str) -> Noise | None:
    """Return the noise model of one experiment's samples, None if there are too few.

    Estimated by the method of moments, as in an analysis of variance (Searle, Casella,
    McCulloch, "Variance Components", 1992, chapters 3 and 4): the variance within boots,
    and the variance of boot means without cell and block effects, less the contribution
    of repetitions. The drift is the covariance of consecutive repetitions of different
    boots. Outliers, beyond 4 robust standard deviations, are counted separately.
    """
    import numpy as np

    found = [_Series.of(cell.samples) for cell in cells_of(samples)]
    series = [one for one in found if one is not None]
    if len(series) < 2:
        return None
    rest = np.concatenate([one.rest for one in series])
    limit = OUTLIER_SDS * _robust_sd(rest)
    is_far = rest > limit
    first = _first_repetition(series, limit)
    kept = [one.without(limit, first) for one in series]
    within, repetitions = _within(kept)
    if within is None:
        return None
    between = _between(kept)
    drift, memory = _drift_of(kept)
    gap = memory ** len(series)  # from one repetition of a boot to its next
    return Noise(
        name=name,
        boot_sd=math.sqrt(max(between - within / repetitions, 0.0)),
        repetition_sd=math.sqrt(max(within - drift * (1 - gap), 0.0)),
        first_repetition=math.expm1(first),
        drift_sd=math.sqrt(drift),
        drift_memory=memory,
        outliers=float(is_far.mean()),
        outlier_factor=math.exp(float(np.median(rest[is_far]))) if is_far.any() else 1.0,
    )


def best_repetitions(
    noise: Noise, *, boot_seconds: float, repetition_seconds: float, warmups: int = 0
) -> int | None:
    """Return the optimal number of repetitions per boot, None if boots add no variance.

    Each boot has `warmups`, which take as long as repetitions.
    T. Kalibera and R. Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013, eq. 3.
    """
    if not noise.boot_sd or not repetition_seconds:
        return None
    cost = boot_seconds / repetition_seconds + warmups
    return math.ceil(math.sqrt(cost) * noise.repetition_sd / noise.boot_sd) or 1


@dataclass(frozen=True, slots=True)
class _Series:
    """The valid repetitions of a cell; `rest` is the log of each time, less the median."""

    rest: np.ndarray
    blocks: np.ndarray
    numbers: np.ndarray  # of the repetitions in their boot
    boots: np.ndarray
    seconds: np.ndarray  # when each began

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> _Series | None:
        import numpy as np

        pairs = [
            (each, each.value) for each in samples if each.status == SampleStatus.OK and each.value
        ]
        if not pairs:
            return None
        good = [each for each, _ in pairs]
        logs = np.log([value for _, value in pairs])
        return cls(
            rest=logs - np.median(logs),
            blocks=np.array([each.block for each in good]),
            numbers=np.array([each.repetition for each in good]),
            boots=np.array([hash(each.boot_id) for each in good]),
            seconds=np.array([datetime.fromisoformat(s.started_at).timestamp() for s in good]),
        )

    def without(self, limit: float, first: float) -> _Series:
        """Return the series centred on its mean, without outliers and first-repetition effect."""
        keep = self.rest <= limit
        rest = (self.rest - first * (self.numbers == 0))[keep]
        others = (each[keep] for each in (self.blocks, self.numbers, self.boots, self.seconds))
        return _Series(rest - rest.mean(), *others)


def _robust_sd(values: np.ndarray) -> float:
    from scipy.stats import median_abs_deviation

    return float(median_abs_deviation(values, scale="normal"))


def _first_repetition(series: Sequence[_Series], limit: float) -> float:
    """Return the mean effect of a boot's first repetition, on the log scale."""
    import numpy as np

    differences = []
    for one in series:
        for block in np.unique(one.blocks):
            own = (one.blocks == block) & (one.rest <= limit)
            is_first = own & (one.numbers == 0)
            later = own & (one.numbers > 0)
            if is_first.any() and later.any():
                differences.append(one.rest[is_first].mean() - one.rest[later].mean())
    return float(np.mean(differences)) if differences else 0.0


def _within(series: Sequence[_Series]) -> tuple[float | None, float]:
    """Return the variance within boots, and the (harmonic) mean number of repetitions."""
    import numpy as np

    squares, freedom, shares = 0.0, 0, []
    for one in series:
        for block in np.unique(one.blocks):
            own = one.rest[one.blocks == block]
            squares += float(np.sum((own - own.mean()) ** 2))
            freedom += len(own) - 1
            shares.append(1 / len(own))
    return (squares / freedom if freedom else None), 1 / float(np.mean(shares))


def _between(series: Sequence[_Series]) -> float:
    """Return the residual variance of boot means in the table of cells by blocks."""
    import numpy as np

    common = sorted(set.intersection(*(set(one.blocks.tolist()) for one in series)))
    if len(common) < 2:
        return 0.0
    means = np.array([[one.rest[one.blocks == b].mean() for b in common] for one in series])
    means -= means.mean(axis=0, keepdims=True)
    means -= means.mean(axis=1, keepdims=True)
    freedom = (len(series) - 1) * (len(common) - 1)
    return float(np.sum(means**2) / freedom)


def _drift_of(series: Sequence[_Series]) -> tuple[float, float]:
    """Return the variance of the host's drift, and its correlation with the next repetition."""
    import numpy as np

    seconds = np.concatenate([one.seconds for one in series])
    order = np.argsort(seconds, kind="stable")
    rest = np.concatenate([one.rest for one in series])[order]
    boots = np.concatenate([one.boots for one in series])[order]
    blocks = np.concatenate([one.blocks for one in series])[order]

    def covariance(lag: int) -> float:
        pairs = (boots[lag:] != boots[:-lag]) & (blocks[lag:] == blocks[:-lag])
        products = (rest[lag:] * rest[:-lag])[pairs]
        return float(products.mean()) if products.size else 0.0

    far = max(len(rest) // max(len(np.unique(blocks)), 1) // 2, 2)
    near, later = covariance(1), covariance(far)
    if near <= 0:
        return 0.0, 0.0
    share = min(max(later / near, _UNCORRELATED), 1.0)
    return near, min(share ** (1 / (far - 1)), _MOST_CORRELATED)


@dataclass(frozen=True, slots=True)
class ExperimentNoise:
    """The noise of one experiment of a run.

    `best_repetitions` is the most efficient number of repetitions per boot.
    """

    name: str
    workload: str
    noise: Noise
    repetitions: int | Literal["auto"] | None
    best_repetitions: int | None


def noises_of(record: RunRecord, samples: Sequence[Sample]) -> list[ExperimentNoise]:
    """Return the noise of each experiment of a run's record that has enough samples.

    Raises:
        UserError: no experiment has two blocks of two cells with repetitions.
    """
    found = []
    for experiment in record.experiments:
        name = experiment.name
        noise = estimate([s for s in samples if s.experiment == name], name=name)
        if noise is not None:
            best = _best_repetitions(noise, record.mean_seconds([name]), experiment.warmup or 0)
            repetitions = experiment.repetitions or None
            found.append(ExperimentNoise(name, experiment.workload, noise, repetitions, best))
    if not found:
        raise UserError(
            f"run {record.run}: too few samples to estimate the noise",
            hint="at least two cells, two blocks and two repetitions per boot are needed",
        )
    return found


def _best_repetitions(noise: Noise, means: tuple[float, float] | None, warmups: int) -> int | None:
    if means is None:
        return None
    boot, repetition = means
    return best_repetitions(
        noise, boot_seconds=boot, repetition_seconds=repetition, warmups=warmups
    )
