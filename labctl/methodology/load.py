"""Load of other processes as a covariate, compared with leaving disturbed blocks out. Pure.

A hypothesis that was tested and not taken: see docs/explanation/methodology.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from labctl.lab.statistics import Statistics
from labctl.methodology.noise import Noise, drift, times
from labctl.methodology.repetitions import log_ratios
from labctl.stats.health import OTHERS_SHARE, extra_blocks
from labctl.stats.paired import t_tests
from labctl.stats.verdict import strict

if TYPE_CHECKING:
    import numpy as np

_USUAL = Statistics()
_BLOCKS, _REPETITIONS = _USUAL.blocks.min, 3
_CELLS = 3  # the baseline, its A/A control, and one compared kernel
_LEVEL = strict(_USUAL.confidence)
_MEASURED_SD = 0.01  # of a share of CPU time: ticks of 10 ms in a repetition of a few seconds
_LARGEST_SHARE = 0.9
_MEMORY = 0.8  # correlation of the load of a busy host with that of the next repetition


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The load of other processes, as shares of the CPU time, and what it does.

    The share is exponential with mean `calm`, and in a share `bursts` of the repetitions larger
    by 5 to 20 %; or, with `busy`, an AR(1) process with this mean, half of it as standard
    deviation, and a lag-1 correlation of 0.8. The log of a time grows by `slope` times the share,
    with half of it as standard deviation. With `fixed_work`, other processes do the same work in
    each repetition instead, so that their share falls as a repetition takes longer. The compared
    kernel is `speedup` times as fast.
    """

    noise: Noise
    slope: float
    calm: float = 0.01
    bursts: float = 0.02
    busy: float = 0.0
    fixed_work: float = 0.0
    speedup: float = 1.0


SCENARIOS = (
    Scenario(noise=Noise(name="quiet"), slope=0.6),
    Scenario(noise=Noise(name="bursts"), slope=0.6, bursts=0.1),
    Scenario(noise=Noise(name="bursts, without effect"), slope=0.0, bursts=0.1),
    Scenario(noise=Noise(name="busy", repetition_sd=0.06, boot_sd=0.03), slope=0.6, busy=0.3),
    Scenario(noise=Noise(name="drift", drift_sd=0.05), slope=0.6),
    Scenario(noise=Noise(name="fixed work"), slope=0.0, fixed_work=0.04, speedup=1.4),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjusted:
    """Coverage and mean half-width of intervals, on the log scale, for one scenario.

    `today`: disturbed blocks are left out, if the others suffice. `by_blocks`: linear regression
    of the blocks' log ratios on the differences of the shares. `within_boots`: values less the
    share times its slope, which is estimated within boots. `correlation` is that of time and
    measured share, `disturbed` the share of disturbed blocks, `blocks` the mean number of
    measured blocks, the same for all.
    """

    scenario: str
    correlation: float
    disturbed: float
    blocks: float
    today: tuple[float, float]
    by_blocks: tuple[float, float]
    within_boots: tuple[float, float]
    runs: int

    def document(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


def adjustments(
    *, runs: int, seed: int, scenarios: Sequence[Scenario] = SCENARIOS
) -> Iterator[Adjusted]:
    """Yield coverage and half-widths with each scenario, for one kernel and its baseline."""
    import numpy as np

    for number, scenario in enumerate(scenarios):
        draw = np.random.default_rng([seed, number])
        logs, shares = _measured(scenario, draw, runs)
        is_used, is_measured, disturbed = _blocks(shares)
        slope = _within_boots(logs, shares, is_measured)
        adjusted = logs - slope[:, None, None, None] * shares
        truth = math.log(scenario.speedup)
        plain, less = (log_ratios(np.moveaxis(one, 3, 1))[..., 1] for one in (logs, adjusted))
        of_blocks = shares.mean(axis=2)
        x = (of_blocks[..., 0] + of_blocks[..., 1]) / 2 - of_blocks[..., 2]
        yield Adjusted(
            scenario=scenario.noise.name,
            correlation=_correlation(logs, shares),
            disturbed=float(disturbed.mean()),
            blocks=float(is_measured.sum(axis=1).mean()),
            today=_judged(*_t(plain, is_used), truth),
            by_blocks=_judged(*_regression(plain, x, is_measured), truth),
            within_boots=_judged(*_t(less, is_measured), truth),
            runs=runs,
        )


def _measured(
    scenario: Scenario, draw: np.random.Generator, runs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the logs of times, and measured shares: runs x blocks x repetitions x cells."""
    import numpy as np

    shape = (runs, _BLOCKS + extra_blocks(_BLOCKS, _BLOCKS), _REPETITIONS, _CELLS)
    logs, order = times(scenario.noise, draw, shape)
    logs[..., _CELLS - 1] -= math.log(scenario.speedup)
    if scenario.fixed_work:
        shares = scenario.fixed_work * np.exp(-logs)
    elif scenario.busy:
        swing = Noise(name="", drift_sd=scenario.busy / 2, drift_memory=_MEMORY)
        shares = scenario.busy + np.take_along_axis(drift(swing, draw, shape), order, axis=3)
    else:
        is_burst = draw.random(shape) < scenario.bursts
        shares = draw.exponential(scenario.calm, shape) + is_burst * draw.uniform(0.05, 0.2, shape)
    shares = np.clip(shares, 0, _LARGEST_SHARE)
    logs += draw.normal(scenario.slope, scenario.slope / 2, shape) * shares
    return logs, np.clip(shares + draw.normal(0, _MEASURED_SD, shape), 0, 1)


def _blocks(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which blocks count today, which are measured, and which are disturbed."""
    import numpy as np

    is_bad = shares >= OTHERS_SHARE
    disturbed = (2 * is_bad.sum(axis=2) >= shares.shape[2]).any(axis=2)
    first = disturbed[:, :_BLOCKS].sum(axis=1)
    measured = _BLOCKS + np.minimum(first, shares.shape[1] - _BLOCKS)
    is_measured = np.arange(shares.shape[1]) < measured[:, None]
    is_good = is_measured & ~disturbed
    has_enough = is_good.sum(axis=1) >= _BLOCKS
    return np.where(has_enough[:, None], is_good, is_measured), is_measured, disturbed


def _within_boots(logs: np.ndarray, shares: np.ndarray, is_used: np.ndarray) -> np.ndarray:
    """Return the slope of the logs over the shares within the boots of each run."""
    y, x = (each - each.mean(axis=2, keepdims=True) for each in (logs, shares))
    x = x * is_used[:, :, None, None]
    found: np.ndarray = (x * y).sum(axis=(1, 2, 3)) / (x**2).sum(axis=(1, 2, 3))
    return found


def _t(d: np.ndarray, is_used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over the used blocks of each run, and the half-width of its interval."""
    count = is_used.sum(axis=1)
    mean = (d * is_used).sum(axis=1) / count
    variance = ((d - mean[:, None]) ** 2 * is_used).sum(axis=1) / (count - 1)
    return mean, _half_width(mean, (variance / count) ** 0.5, count - 1)


def _regression(d: np.ndarray, x: np.ndarray, is_used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean where `x` is 0, by linear regression, and its half-width."""
    count = is_used.sum(axis=1)
    of_x, of_d = ((each * is_used).sum(axis=1) / count for each in (x, d))
    x, d = ((e - m[:, None]) * is_used for e, m in ((x, of_x), (d, of_d)))
    squares = (x**2).sum(axis=1)
    slope = (x * d).sum(axis=1) / squares
    variance = ((d - slope[:, None] * x) ** 2).sum(axis=1) / (count - 2)
    mean, error = of_d - slope * of_x, (variance * (1 / count + of_x**2 / squares)) ** 0.5
    return mean, _half_width(mean, error, count - 2)


def _half_width(mean: np.ndarray, error: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    tests = t_tests(mean, error, freedom, confidence=_LEVEL, margin=0.0)
    half_width: np.ndarray = tests.half_width
    return half_width


def _judged(mean: np.ndarray, half: np.ndarray, truth: float) -> tuple[float, float]:
    return float((abs(mean - truth) <= half).mean()), float(half.mean())


def _correlation(logs: np.ndarray, shares: np.ndarray) -> float:
    """Return the mean over runs of the correlation of time and share, of the baseline."""
    y, x = (one[..., 0] - one[..., 0].mean(axis=(1, 2), keepdims=True) for one in (logs, shares))
    products, squares = (x * y).sum(axis=(1, 2)), (x**2).sum(axis=(1, 2)) * (y**2).sum(axis=(1, 2))
    return float((products / squares**0.5).mean())
