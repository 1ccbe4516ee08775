"""How often streaks are warned of, by the number of blocks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from labctl.lab.statistics import Statistics
from labctl.methodology.noise import Noise
from labctl.methodology.runs import Design, independent_after, log_ratios, moments
from labctl.stats.paired import t_tests
from labctl.stats.verdict import strict

if TYPE_CHECKING:
    import numpy as np

BLOCKS = (8, 10, 12, 15, 20, 30)
INDEPENDENT = Noise(name="independent")
STREAKS = Noise(name="streaks", spoilt_boots=0.1, streak=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Shares of the cells after a number of blocks: 0.05 is 5 %.

    `falsely` are warned of though blocks are independent, `rightly` with streaks of four slow
    boots. `coverage` is that of the interval with streaks, `uncorrected` that of the usual one.
    """

    blocks: int
    falsely: float
    rightly: float
    coverage: float
    uncorrected: float
    runs: int

    def document(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


def warnings(*, runs: int, seed: int, blocks: Sequence[int] = BLOCKS) -> Iterator[Warned]:
    """Yield the shares for each number of blocks, of one cell compared with its baseline."""
    import numpy as np

    design = Design(name="", cells=1, blocks_max=max(blocks), stop_at_half_width=None)
    draws = (np.random.default_rng([seed, number]) for number in (0, 1))
    kinds = zip((INDEPENDENT, STREAKS), draws, strict=True)
    quiet, streaks = (log_ratios(noise, design, draw, runs)[..., 1:] for noise, draw in kinds)
    falsely, counts = independent_after(quiet)[..., 0], independent_after(streaks)[..., 0]
    mean, sd = (each[..., 0] for each in moments(streaks))
    for number in blocks:
        last = number - 1
        own = counts[:, last]
        yield Warned(
            blocks=number,
            falsely=float((falsely[:, last] < number).mean()),
            rightly=float((own < number).mean()),
            coverage=_coverage(mean[:, last], sd[:, last], own),
            uncorrected=_coverage(mean[:, last], sd[:, last], np.full(len(own), float(number))),
            runs=runs,
        )


def _coverage(mean: np.ndarray, sd: np.ndarray, count: np.ndarray) -> float:
    level = strict(Statistics().confidence)
    tests = t_tests(mean, sd / count**0.5, count - 1, confidence=level, margin=0.0)
    return float((abs(mean) <= tests.half_width).mean())
