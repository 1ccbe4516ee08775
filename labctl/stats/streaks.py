"""Streaks: blocks in a row that are alike, so that they are not independent. Pure.

Example: the boots of a kernel are slow four times in a row. The t test takes blocks as
independent, and its interval would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from labctl.stats.paired import MINIMUM_BLOCKS

if TYPE_CHECKING:
    import numpy as np

_QUANTILE = 1.645  # of the normal distribution, 95 %
_MOST = 0.99
_FEWEST = 2.0  # a standard deviation needs two blocks


def correlation(d: Sequence[float]) -> float:
    """Return the correlation of the blocks' log ratios with those of the next blocks.

    0 for fewer than 6 blocks, which cannot show it, and for equal values.
    """
    if len(d) < MINIMUM_BLOCKS:
        return 0.0
    mean = math.fsum(d) / len(d)
    rest = [value - mean for value in d]
    squares = math.fsum(value**2 for value in rest)
    return math.fsum(a * b for a, b in pairwise(rest)) / squares if squares else 0.0


def independent(correlation: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return how many independent blocks say as much as `blocks` with this correlation.

    That is `blocks`, unless the correlation is beyond 1.645 / sqrt(blocks), as it is for 1 to 3 %
    of independent blocks. Then they count as an AR(1) process, at least as 2, with the
    correlation that is left when its bias in few blocks is removed (M. G. Kendall, Biometrika
    41, 1954). Takes numbers, or arrays of one shape.
    """
    import numpy as np

    is_streak = correlation * np.sqrt(blocks) > _QUANTILE
    true = np.clip(correlation + (1 + 4 * correlation) / blocks, -_MOST, _MOST)
    share = (1 - true) / (1 + true)
    found: np.ndarray = np.where(is_streak, np.maximum(blocks * share, _FEWEST), blocks)
    return found


def independent_blocks(d: Sequence[float]) -> float:
    """Return `independent` for the blocks' log ratios or differences."""
    import numpy as np

    return float(independent(np.array(correlation(d)), np.array(float(len(d)))))
