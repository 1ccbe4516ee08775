"""Bisection with noisy answers: the next step, and the tests of each decision. Pure.

A step is compared with the good and with the bad end in the same blocks: the threshold
is their geometric mean, so that it follows the host's drift. Each decision takes a part
of the risk; all parts together are the requested risk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from labctl.runs.sample import Sample
from labctl.stats.cells import cells_of, failures, primary
from labctl.stats.health import usable

# Numbers of blocks after which an interim analysis is made.
ANALYSES = (4, 5, 6, 8, 10, 13, 17, 22, 28, 36)
GOOD, BAD, SKIPPED = "good", "bad", "skipped"


@dataclass(slots=True)
class Search:
    """The state of a search: step `good` is good, `bad` is bad, `skipped` cannot be tested.

    `risk` is the highest accepted probability of a wrong answer, `spent` its used part.
    """

    good: int
    bad: int
    risk: float
    skipped: set[int] = field(default_factory=set)
    spent: float = 0.0

    @property
    def candidates(self) -> range:
        """The steps that may be the first bad one."""
        return range(self.good + 1, self.bad + 1)

    def next_step(self) -> int | None:
        """Return the testable step nearest to the middle, None if there is none."""
        middle = (self.good + self.bad) // 2
        inside = [s for s in range(self.good + 1, self.bad) if s not in self.skipped]
        return min(inside, key=lambda step: abs(step - middle), default=None)

    def allowance(self, *, ends: bool = False) -> float:
        """Return the risk of the next decision; `ends` for the test that the ends differ.

        The remaining decisions share the remaining risk.
        """
        needed = max(math.ceil(math.log2(max(len(self.candidates), 1))), 1)
        return (self.risk - self.spent) / (needed + ends)

    def spend(self, risk: float) -> None:
        """Record a decision whose probability of being wrong is at most `risk`."""
        self.spent += risk

    def record(self, step: int, verdict: str) -> None:
        """Record a step's verdict: good, bad or skipped."""
        if verdict == GOOD:
            self.good = step
        elif verdict == BAD:
            self.bad = step
        else:
            self.skipped.add(step)


def direction(d: Sequence[float], risk: float) -> int:
    """Return 1 if the mean of `d` is above 0, -1 if below, 0 if that is not yet certain.

    Call it once at each of `ANALYSES`, with all values so far; disturbed blocks have none.
    One-sided tests: the t test, which needs few blocks on a quiet host, and Wilcoxon's
    signed-rank test, which resists outliers. All tests share the risk (Bonferroni): over all
    interim analyses, 1 is returned with at most the probability `risk` if the true mean is 0
    or below, and -1 likewise.
    """
    from scipy.stats import ttest_1samp, wilcoxon

    if len(d) < ANALYSES[0]:
        return 0
    values = list(d)
    if max(values) - min(values) <= 1e-12:  # no spread, no t statistic
        return (values[0] > 0) - (values[0] < 0)
    each = risk / len(ANALYSES) / 2
    for sign, alternative in ((1, "greater"), (-1, "less")):
        by_t = float(ttest_1samp(values, 0.0, alternative=alternative).pvalue)
        by_rank = float(wilcoxon(values, alternative=alternative).pvalue)
        if min(by_t, by_rank) <= each:
            return sign
    return 0


def ends_differ(good: Sequence[float], bad: Sequence[float], risk: float, margin: float) -> int:
    """Return 1 if the bad end is above the good one by more than `margin`, -1 if below, else 0.

    `good` and `bad` are logarithms, one per block; `risk` bounds the probability of an error.
    """
    differences = [b - g for g, b in zip(good, bad, strict=True)]
    if direction([one - margin for one in differences], risk / 2) == 1:
        return 1
    return -1 if direction([one + margin for one in differences], risk / 2) == -1 else 0


def is_bad(
    step: Sequence[float], good: Sequence[float], bad: Sequence[float], *, sign: int, risk: float
) -> bool | None:
    """Return whether a step is on the bad end's side of the threshold, None if not yet certain.

    All are logarithms, one per block; `sign` is the result of `ends_differ`.
    """
    threshold = [(g + b) / 2 for g, b in zip(good, bad, strict=True)]
    found = direction([sign * (s - t) for s, t in zip(step, threshold, strict=True)], risk)
    return None if found == 0 else found == 1


def logs_of(samples: Sequence[Sample], kernels: Sequence[str]) -> list[list[float]]:
    """Return each kernel's logs of block means, for the blocks that all kernels have.

    Disturbed blocks are left out if enough others remain.
    """
    found: Mapping[str, Mapping[int, float]] = {
        cell.kernel: cell.of_blocks(primary)
        for cell in cells_of(usable(samples, ANALYSES[0])[0])
        if not cell.is_control
    }
    own = [found.get(kernel, {}) for kernel in kernels]
    common = sorted(set.intersection(*(set(logs) for logs in own))) if own else []
    return [[logs[block] for block in common] for logs in own]


def has_failed(samples: Iterable[Sample], kernel: str) -> bool:
    """Return whether a guest of the kernel failed."""
    return any(failures(cell.not_ok()) for cell in cells_of(samples) if cell.kernel == kernel)


def passes_needed(failed: int, tried: int, risk: float) -> int:
    """Return how often a check must pass before its step counts as good.

    `failed` of `tried` tries failed at the bad end. Half of the risk is that it fails
    less often than the bound (Clopper and Pearson, Biometrika 26, 1934), half that a bad
    step passes all the same. Raises ValueError if it never failed.
    """
    from scipy.stats import beta

    if not 0 < failed <= tried:
        raise ValueError("expected a failed try, but the check never failed")
    least = float(beta.ppf(risk / 2, failed, tried - failed + 1))
    return max(math.ceil(math.log(risk / 2) / math.log1p(-least)), 1)
