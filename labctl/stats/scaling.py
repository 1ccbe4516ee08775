"""Scaling curves: time against number of workers, contention, coherency, best number. Pure.

The Universal Scalability Law (N. J. Gunther, "Guerrilla Capacity Planning", 2007) gives
the time with n workers; Amdahl's law is the same without the last term:

    T(n) = T(1) (1 + contention (n - 1) + coherency n (n - 1)) / n

It is fitted to the logarithms of the times, because labctl compares ratios.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    import numpy as np

    from labctl.stats.comparison import Comparison

MINIMUM_LEVELS = 4  # three parameters and one degree of freedom
_IS_PARALLELISM = re.compile(r"max_active|threads|workers|jobs")
_NEAR_BEST = 0.1
_ALPHA = 0.05
_LARGEST_CONTENTION = 100.0

Interval = tuple[float, float]


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """The scalability law, fitted to a kernel's times over a number of workers."""

    axis: Annotated[str, Meta(description="Tunable or parameter that sets the number of workers.")]
    kernel: Annotated[str, Meta(description="Name of the kernel.")]
    levels: Annotated[tuple[int, ...], Meta(description="Measured numbers of workers.")]
    seconds: Annotated[tuple[float, ...], Meta(description="Measured time at each level.")]
    fitted_seconds: Annotated[tuple[float, ...], Meta(description="Fitted time at each level.")]
    contention: Annotated[
        float,
        Meta(
            description="Share of the work that waits for its turn; above 1, each worker costs "
            "the others more than it does."
        ),
    ]
    contention_ci: Annotated[Interval, Meta(description="95 % confidence interval of it.")]
    coherency: Annotated[float, Meta(description="What each pair of workers costs.")]
    coherency_ci: Annotated[Interval, Meta(description="95 % confidence interval of it.")]
    p_coherency: Annotated[
        float, Meta(description="p of Amdahl's law against the full law, by the F test.")
    ]
    is_amdahl: Annotated[
        bool, Meta(description="Whether Amdahl's law is not rejected at the 5 % level.")
    ]
    residual_percent: Annotated[
        float, Meta(description="Residual standard deviation of the log times, in percent.")
    ]
    best: Annotated[
        int, Meta(description="Workers with the shortest fitted time in the measured range.")
    ]
    knee: Annotated[int, Meta(description="Fewest workers within 10 % of the best fitted time.")]
    recommended: Annotated[int, Meta(description="The same among the measured levels.")]


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
    """Fit the law to `points`, seconds by number of workers.

    The intervals are 95 % t intervals with the residual degrees of freedom. Raises
    ValueError for fewer than 4 levels.
    """
    if len(points) < MINIMUM_LEVELS:
        raise ValueError(f"expected at least {MINIMUM_LEVELS} levels, got {len(points)}")
    import numpy as np
    from scipy.optimize import curve_fit
    from scipy.special import fdtrc, stdtrit

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
    p = float(fdtrc(1, freedom, gained / (rest / freedom))) if rest > 0 else 0.0
    reach = stdtrit(freedom, 1 - _ALPHA / 2) * np.sqrt(np.diag(covariance))
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
