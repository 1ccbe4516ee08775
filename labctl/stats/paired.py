"""Statistics of paired blocks: intervals, p values, families, power. Pure.

The input `d` has one log ratio per block; above 0 is better than the baseline. For differences
see `stats.scale`. A constant `d` has no t statistic: its result has only the mean.

Of scipy only `scipy.special` is used: the import of `scipy.stats` takes longer than a report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from labctl.stats.over_hosts import Hosts

MINIMUM_BLOCKS = 6  # with fewer, no exact test over blocks can reach p = 5 %
POWER = 0.8
_CONSTANT = 1e-12  # a spread of logs below the precision of a double
_MOST_BLOCKS = 200  # more blocks take days
# Up to this many blocks, all sign patterns are used; above, a sample with a fixed seed.
_EXACT_BLOCKS = 14
# The patterns of more blocks would need much memory: 1.6 GB for 100 000.
_MANY_BLOCKS = 2000
# Patterns at a time: all would take 1 GB for 1000 blocks, and more at a time make BLAS start
# threads that cost ten times the work.
_BATCH = 256
LARGEST_LOG = 700.0  # larger values overflow in exp()


@dataclass(frozen=True, slots=True)
class Paired:
    """The result over all blocks; values that need more blocks are None.

    `mean` and `sd` are on the log scale. `independent` is how many independent blocks say as
    much as the blocks; `sd` is widened if they are fewer. `p` tests the hypothesis of no
    difference, `p_beyond` of no difference beyond the margin (in the observed direction,
    two-sided), `p_same` of a difference at least as large as the margin. With blocks of several
    hosts, `hosts` says how these differ, and all else is over hosts.
    """

    blocks: int
    mean: float
    sd: float | None
    half_width: float | None
    p: float | None
    p_beyond: float | None
    p_same: float | None
    independent: float | None = None
    hosts: Hosts | None = None

    @property
    def ratio(self) -> float:
        """The geometric mean of the blocks' ratios."""
        return exp(self.mean)

    @property
    def ci(self) -> tuple[float, float] | None:
        """The interval of the ratio."""
        if self.half_width is None:
            return None
        return exp(self.mean - self.half_width), exp(self.mean + self.half_width)


def exp(value: float) -> float:
    """Return e to the power of `value`, never infinite."""
    return math.exp(min(value, LARGEST_LOG))


def paired(
    d: Sequence[float], *, confidence: float, margin: float, independent: float | None = None
) -> Paired:
    """Compare by a paired t over blocks; `margin` is on the log scale and not negative.

    `independent` is how many independent blocks say as much as these, all of them if omitted.
    Raises ValueError for no blocks.
    """
    if not d:
        raise ValueError("no block has a valid pair")
    values = sorted(d)  # so that the order of the blocks does not change the last digit
    blocks = len(values)
    mean = math.fsum(values) / blocks
    if blocks == 1:
        return Paired(blocks, mean, None, None, None, None, None)
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (blocks - 1))
    if sd <= _CONSTANT:
        p = 1.0 if abs(mean) <= _CONSTANT else 0.0
        is_beyond = abs(mean) > max(margin, _CONSTANT)
        is_within = abs(mean) < margin
        return Paired(
            blocks, mean, 0.0, 0.0, p, 0.0 if is_beyond else 1.0, 0.0 if is_within else 1.0
        )
    count = independent or blocks
    tests = t_tests(mean, sd / math.sqrt(count), count - 1, confidence=confidence, margin=margin)
    widened = sd * math.sqrt(blocks / count)
    half_width, p, p_beyond, p_same = (float(each) for each in tests)
    return Paired(blocks, mean, widened, half_width, p, p_beyond, p_same, count)


class TTests(NamedTuple):
    """What `t_tests` returns; the fields are those of `Paired`."""

    half_width: Any
    p: Any
    p_beyond: Any
    p_same: Any


def t_tests(mean: Any, error: Any, freedom: Any, *, confidence: float, margin: float) -> TTests:  # noqa: ANN401
    """Return Student's interval and tests of means with standard errors above 0.

    Takes numbers, or arrays of one shape. `p_beyond` is of two one-sided tests, doubled,
    `p_same` the greater of two (TOST; D. J. Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987).
    """
    import numpy as np
    from scipy.special import stdtr, stdtrit

    above = stdtr(freedom, -(mean - margin) / error)
    below = stdtr(freedom, (mean + margin) / error)
    return TTests(
        half_width=stdtrit(freedom, (1 + confidence) / 2) * error,
        p=2 * stdtr(freedom, -np.abs(mean) / error),
        p_beyond=np.minimum(1.0, 2 * np.minimum(above, below)),
        p_same=np.maximum(
            stdtr(freedom, (mean - margin) / error), stdtr(freedom, -(mean + margin) / error)
        ),
    )


def sign_flip(d: Sequence[float]) -> float | None:
    """Return the two-sided p of Fisher's sign-flip test of the mean, None below 6 blocks.

    It only assumes log ratios symmetric about 0 under no change, while the t test assumes
    a normal distribution. With very many blocks, the sum over patterns is normally distributed.
    """
    if len(d) < MINIMUM_BLOCKS:
        return None
    import numpy as np

    values = np.array(sorted(d))
    if len(values) > _MANY_BLOCKS:
        from scipy.special import ndtr

        size = float(np.sqrt((values**2).sum()))
        return 2 * float(ndtr(-abs(values.sum()) / size)) if size else 1.0
    patterns = _sign_patterns(len(values))
    reached = 0
    for first in range(0, len(patterns), _BATCH):
        flipped = patterns[first : first + _BATCH].astype(float)
        sums = np.abs(values.sum() - 2 * (flipped @ values))
        # Rounding must not separate tied patterns.
        reached += int(np.sum(sums >= abs(values.sum()) - _CONSTANT * len(values)))
    if len(values) <= _EXACT_BLOCKS:
        return reached / len(patterns)
    # Add the observed pattern to a sample of patterns (Phipson and Smyth, 2010).
    return (reached + 1) / (len(patterns) + 1)


@lru_cache(maxsize=1)  # consecutive cells mostly have the same number of blocks
def _sign_patterns(blocks: int) -> np.ndarray:
    """Return the sign patterns, one per row: all patterns, or a sample of them."""
    import numpy as np

    if blocks > _EXACT_BLOCKS:
        draw = np.random.default_rng(0)
        return draw.integers(0, 2, (2**_EXACT_BLOCKS, blocks), dtype=np.int8)
    flipped: np.ndarray = np.arange(2**blocks)[:, None] >> np.arange(blocks) & 1
    return flipped.astype(np.int8)


def signed_ranks(d: Sequence[float]) -> float | None:
    """Return the two-sided p of Wilcoxon's signed-rank test, None below 6 blocks.

    It is the sign-flip test of the ranks, and therefore exact also with ties. A few outlying
    blocks have little weight, while they reduce the t test's power.
    """
    import numpy as np

    values = np.array(d, dtype=float)
    _, place, counts = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # ties share the mean of their ranks
    return sign_flip((np.sign(values) * ranks).tolist())


def adjust(
    p_values: Sequence[float | None], *, method: Literal["holm", "fdr_bh"] = "holm"
) -> list[float | None]:
    """Correct the p values of one family; None is not counted as a test.

    `fdr_bh` is Benjamini and Hochberg's control of the false discovery rate.
    """
    present = [p for p in p_values if p is not None]
    if len(present) < 2:
        return list(p_values)
    import numpy as np

    correct = holm if method == "holm" else _benjamini_hochberg
    corrected = iter(correct(np.array(present)).tolist())
    return [None if p is None else next(corrected) for p in p_values]


def holm(p: np.ndarray) -> np.ndarray:
    """Correct the p values of many families along the last axis; `adjust` is for one family.

    S. Holm, Scand. J. Statist. 6 (1979), 65-70.
    """
    import numpy as np

    order = np.argsort(p, axis=-1)
    ranked = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    corrected = np.empty_like(p)
    stepped = np.minimum(np.maximum.accumulate(ranked, axis=-1), 1)
    np.put_along_axis(corrected, order, stepped, axis=-1)
    return corrected


def _benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Correct the p values of one family (J. R. Stat. Soc. B 57, 1995)."""
    import numpy as np

    order = np.argsort(p)[::-1]
    stepped = np.minimum.accumulate(p[order] * (len(p) / np.arange(len(p), 0, -1)))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def more_blocks(result: Paired | None, *, alpha: float, margin: float, family: int) -> int | None:
    """Return about how many more blocks would decide, None if too many to measure.

    Assumes that effect and spread stay as observed. Beyond the margin, a difference must be
    shown; within it, equivalence.
    """
    blocks = result.blocks if result else 0
    missing = max(MINIMUM_BLOCKS - blocks, 0)
    if result is None or not result.sd or result.hosts:
        return missing or None
    gap = (abs(result.mean) - margin) / result.sd
    needed = _units_for(gap, alpha=alpha / max(family, 1), fewest=MINIMUM_BLOCKS)
    return None if needed is None else max(needed - blocks, missing, 1)


def more_hosts(result: Paired, *, alpha: float, margin: float, family: int) -> int | None:
    """Return about how many more hosts would decide; as `more_blocks`, for a run on several.

    None for a run on one host.
    """
    if result.hosts is None or not result.sd:
        return None
    hosts = len(result.hosts.means)
    gap = (abs(result.mean) - margin) / (result.hosts.error * math.sqrt(hosts))
    needed = _units_for(gap, alpha=alpha / max(family, 1), fewest=2)
    return None if needed is None else max(needed - hosts, 1)


def _units_for(gap: float, *, alpha: float, fewest: int) -> int | None:
    """Return the number of blocks or hosts for a mean that far beyond the margin, in SDs."""
    if gap > 0:
        return _blocks_for(gap, alpha=alpha, power=POWER, sides="two-sided", fewest=fewest)
    # Equivalence: both bounds must be shown.
    power = (1 + POWER) / 2
    return _blocks_for(-gap, alpha=alpha, power=power, sides="larger", fewest=fewest)


def _blocks_for(
    effect: float, *, alpha: float, power: float, sides: str, fewest: int = MINIMUM_BLOCKS
) -> int | None:
    def reaches(blocks: int) -> bool:
        return _power(effect, blocks=blocks, alpha=alpha, sides=sides) >= power

    low, high = fewest - 1, fewest
    while not reaches(high):
        if high >= _MOST_BLOCKS:
            return None
        low, high = high, min(2 * high, _MOST_BLOCKS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def smallest_effect(
    sd: float, blocks: int, *, confidence: float, cells: int, margin: float
) -> float:
    """Return the effect that `blocks` blocks show in 80 % of the runs; 0.05 is 5 %.

    Arguments are as for `smallest_shift`, with `sd` of the blocks' log ratios.
    """
    shift = smallest_shift(sd, blocks, confidence=confidence, cells=cells, margin=margin)
    return exp(shift) - 1 if shift < math.inf else shift


def smallest_shift(
    sd: float, blocks: int, *, confidence: float, cells: int, margin: float
) -> float:
    """Return the shift of the mean of `d` that `blocks` blocks show in 80 % of the runs.

    Shown is a difference of more than `margin`, which makes a cell faster or slower. `sd` is
    the standard deviation of `d`, `cells` the size of the family: if other cells differ too,
    Holm's correction shows a little more. Infinite below two blocks.
    """
    if blocks < 2:
        return math.inf
    if sd <= 0:
        return margin
    alpha = (1 - confidence) / max(cells, 1)
    low, high = 0.0, 1.0
    while _power(high, blocks=blocks, alpha=alpha) < POWER:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (
            (low, middle) if _power(middle, blocks=blocks, alpha=alpha) >= POWER else (middle, high)
        )
    return margin + sd * high


def _power(effect: float, *, blocks: int, alpha: float, sides: str = "two-sided") -> float:
    """Return the power of a one-sample t test; `effect` is Cohen's d, |d| if two-sided.

    By the noncentral t distribution: J. Cohen, Statistical Power Analysis (1988).
    """
    from scipy.special import nctdtr, stdtrit

    degrees, shift = blocks - 1, effect * math.sqrt(blocks)
    critical = -stdtrit(degrees, alpha / 2 if sides == "two-sided" else alpha)
    value = 1 - float(nctdtr(degrees, shift, critical))
    if sides == "two-sided":
        value += float(nctdtr(degrees, shift, -critical))
    # for an effect of very many standard deviations the distribution overflows to NaN
    return 1.0 if math.isnan(value) else value
