"""The scales on which cells are compared: ratios by their logarithms, or differences. Pure.

With ratios, a block's value is a robust mean of the logs of its repetitions. With differences it
is their plain mean: where most counts are 0, those above are not outliers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from labctl.lab.metrics import MetricKind, Scale
from labctl.lab.quantity import LARGEST
from labctl.stats import robust
from labctl.stats.over_hosts import of_control, over_hosts
from labctl.stats.paired import LARGEST_LOG, Paired, paired
from labctl.stats.streaks import independent_blocks

if TYPE_CHECKING:
    import numpy as np


def is_usable(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Return which values can be compared: those above 0 as ratios."""
    import numpy as np

    finite = np.isfinite(values)
    usable: np.ndarray = finite & (values > 0 if scale == "ratio" else np.abs(values) <= LARGEST)
    return usable


def of_rows(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Return the value of each block: a row, with NaN where it has fewer repetitions."""
    import numpy as np

    if scale == "ratio":
        logs = np.log(values)
        return robust.means(logs, robust.spread(logs))
    found: np.ndarray = np.nanmean(values, axis=1)
    return found


def spread_of_rows(values: np.ndarray, scale: Scale) -> float:
    """Return the standard deviation of the repetitions of a block, robust for ratios.

    As in `of_rows`: of events that are rare, most repetitions have none, and a robust spread
    would be 0.
    """
    import numpy as np

    if not values.size:
        return 0.0
    return float(robust.spread(np.log(values)) if scale == "ratio" else plain_spread(values))


def plain_spread(values: np.ndarray) -> np.ndarray:
    """Return the standard deviation within rows, of all rows together; see `robust.spread`."""
    import numpy as np

    count = np.isfinite(values).sum(axis=-1)
    mean = np.nansum(values, axis=-1, keepdims=True) / np.maximum(count, 1)[..., None]
    squares = np.nansum((values - mean) ** 2, axis=(-2, -1))
    freedom = np.maximum(count - 1, 0).sum(axis=-1)
    found: np.ndarray = np.sqrt(squares / np.maximum(freedom, 1))
    return found


def margin_of(minimum_effect: float, metric: MetricKind) -> float:
    """Return the minimum effect on the scale of the blocks' values; 0.02 is 2 % of a ratio."""
    return minimum_effect if metric.is_difference else math.log1p(minimum_effect)


def effect_of(margin: float, metric: MetricKind) -> float:
    """Return the inverse of `margin_of`, never infinite."""
    return margin if metric.is_difference else math.expm1(min(margin, LARGEST_LOG))


def without_unit(d: Sequence[float], metric: MetricKind) -> tuple[list[float], float]:
    """Return the blocks' log ratios or differences without their unit, and the unit.

    Differences are divided by their largest absolute value, so that tests for equal values do
    not depend on the unit of the metric; log ratios have none.
    """
    unit = max(map(abs, d), default=0.0) if metric.is_difference else 1.0
    return (list(d), 1.0) if unit in (0.0, 1.0) else ([one / unit for one in d], unit)


def compared(
    d: Sequence[float],
    *,
    confidence: float,
    margin: float,
    metric: MetricKind,
    hosts: Sequence[str] = (),
    is_control: bool = False,
) -> Paired | None:
    """Return the test of the blocks' log ratios or differences, None without a block.

    Widened if blocks in a row are alike (`streaks`). `hosts` has the host of each block; with
    several, the test is over hosts. That of an A/A control is over blocks: on no host does the
    baseline truly differ from itself.
    """
    if not d:
        return None
    values, unit = without_unit(d, metric)
    rule = {"confidence": confidence, "margin": margin / unit}
    if len(set(hosts)) < 2:
        found = paired(values, **rule, independent=independent_blocks(values))
    elif is_control:
        found = paired(values, **rule, independent=independent_blocks(values))
        found = replace(found, hosts=of_control(values, hosts, **rule))
    else:
        found = over_hosts(values, hosts, **rule)
    if unit == 1.0:
        return found
    return replace(
        found,
        mean=found.mean * unit,
        sd=None if found.sd is None else found.sd * unit,
        half_width=None if found.half_width is None else found.half_width * unit,
        hosts=None if found.hosts is None else found.hosts.scaled(unit),
    )


def difference(result: Paired, metric: MetricKind) -> tuple[float, tuple[float, float] | None]:
    """Return the mean difference, cell minus baseline, and its interval."""
    # `result` is above 0 where the cell is better. Zero keeps its sign: 0 - 0, not -0.
    sign = 1.0 if metric.better == "higher" else -1.0
    mean = 0.0 + sign * result.mean
    if result.half_width is None:
        return mean, None
    return mean, (0.0 + mean - result.half_width, 0.0 + mean + result.half_width)
