"""Time against the number of workers: what contention and coherency cost, and where to stop. Pure.

The Universal Scalability Law (N. J. Gunther, "Guerrilla Capacity Planning", 2007)
says of the time with n workers, and Amdahl's law is the same without the last term:

    T(n) = T(1) (1 + contention (n - 1) + coherency n (n - 1)) / n

It is fitted to the logarithms of the times, as all of labctl compares ratios.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from labctl.results.comparison import Comparison

MINIMUM_LEVELS = 4  # three parameters, and something left to judge them by
_IS_PARALLELISM = re.compile(r"max_active|threads|workers|jobs")
_NEAR_BEST = 0.1
_ALPHA = 0.05
_LARGEST_CONTENTION = 100.0

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """A fitted curve over `levels` (numbers of workers) and `seconds`.

    `contention` is the share of the work that waits for its turn (above 1, each
    worker costs the others more than it does), `coherency` what each pair of
    workers costs; both with intervals. `p_coherency` tests Amdahl's law against
    the full one (F test of nested models), `is_amdahl` says that at 5 % the data
    cannot tell them apart. `best` is the number of workers, in the
    range measured, with the shortest fitted time, `knee` the smallest that comes
    within 10 % of it, and `recommended` the same among the levels that were measured.
    """

    axis: str
    kernel: str
    levels: tuple[int, ...]
    seconds: tuple[float, ...]
    fitted_seconds: tuple[float, ...]
    contention: float
    contention_ci: Interval
    coherency: float
    coherency_ci: Interval
    p_coherency: float
    is_amdahl: bool
    residual_percent: float
    best: int
    knee: int
    recommended: int


def curves(cells: Sequence[Comparison]) -> list[Curve]:
    """Return a curve for each kernel whose cells differ in one number of workers only."""
    found = []
    for kernel in dict.fromkeys(cell.kernel for cell in cells):
        own = [c for c in cells if c.kernel == kernel and c.verdict != "baseline"]
        axes = {name for cell in own for name in cell.setting if len(cell.setting) == 1}
        for axis in sorted(filter(_IS_PARALLELISM.search, axes)):
            points = _points(own, axis)
            if len(points) >= MINIMUM_LEVELS:
                found.append(fit(points, axis=axis, kernel=kernel))
    return found


def _points(cells: Sequence[Comparison], axis: str) -> dict[int, float]:
    points = {}
    for cell in cells:
        level = cell.setting.get(axis)
        if isinstance(level, int) and level > 0 and cell.median_seconds:
            points[level] = cell.median_seconds
    return dict(sorted(points.items()))


def fit(points: Mapping[int, float], *, axis: str = "max_active", kernel: str = "") -> Curve:
    """Fit the law to seconds by number of workers.

    The intervals are of 95 %, by t with the degrees of freedom that the fit
    leaves. Raises ValueError for fewer than four levels.
    """
    if len(points) < MINIMUM_LEVELS:
        raise ValueError(f"a curve needs {MINIMUM_LEVELS} levels, and has {len(points)}")
    import numpy as np
    from scipy.optimize import curve_fit
    from scipy.stats import f as f_distribution
    from scipy.stats import t as t_distribution

    levels = np.array(list(points), dtype=float)
    logs = np.log(np.array(list(points.values())))

    def amdahl(n: np.ndarray, scale: float, contention: float) -> np.ndarray:
        return np.asarray(scale + np.log1p(contention * (n - 1)) - np.log(n))

    def full(n: np.ndarray, scale: float, contention: float, coherency: float) -> np.ndarray:
        shared = contention * (n - 1) + coherency * n * (n - 1)
        return np.asarray(scale + np.log1p(shared) - np.log(n))

    most = _LARGEST_CONTENTION
    begin = (logs[0], 0.5)
    less, _ = curve_fit(amdahl, levels, logs, begin, bounds=([-np.inf, 0], [np.inf, most]))
    law, covariance = curve_fit(
        full, levels, logs, (*less, 0.01), bounds=([-np.inf, 0, 0], [np.inf, most, most])
    )
    freedom = len(levels) - len(law)
    fitted = full(levels, *law)
    rest = float(np.sum((logs - fitted) ** 2))
    gained = max(float(np.sum((logs - amdahl(levels, *less)) ** 2)) - rest, 0.0)
    p = float(f_distribution.sf(gained / (rest / freedom), 1, freedom)) if rest > 0 else 0.0
    reach = t_distribution.ppf(1 - _ALPHA / 2, freedom) * np.sqrt(np.diag(covariance))
    low, high = law - reach, law + reach
    span = np.arange(int(levels[0]), int(levels[-1]) + 1)
    times = np.exp(full(span, *law))
    measured = np.exp(fitted)
    return Curve(
        axis=axis,
        kernel=kernel,
        levels=tuple(points),
        seconds=tuple(points.values()),
        fitted_seconds=tuple(measured.tolist()),
        contention=float(law[1]),
        contention_ci=(max(float(low[1]), 0.0), float(high[1])),
        coherency=float(law[2]),
        coherency_ci=(max(float(low[2]), 0.0), float(high[2])),
        p_coherency=p,
        is_amdahl=p > _ALPHA,
        residual_percent=100 * float(np.sqrt(rest / freedom)),
        best=int(span[times.argmin()]),
        knee=_first_near_best(span, times),
        recommended=_first_near_best(levels, measured),
    )


def _first_near_best(levels: np.ndarray, times: np.ndarray) -> int:
    return int(levels[(times <= (1 + _NEAR_BEST) * times.min()).argmax()])
