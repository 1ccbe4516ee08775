"""Validation of the statistical method with simulated runs. Pure.

A simulated run has the noise of real ones: variance of repetitions and boots, drift of
the host, outliers. Since the true effect is known, intervals that miss it and wrong
verdicts can be counted. Tests and stopping rule take arrays, for many runs at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from labctl.lab.statistics import Statistics
from labctl.methodology.noise import NOISES, Noise, times
from labctl.methodology.repetitions import log_ratios as of_logs
from labctl.methodology.repetitions import thinned
from labctl.stats.paired import MINIMUM_BLOCKS, holm, t_tests
from labctl.stats.repetitions import MOST, Goal
from labctl.stats.run_noise import widened_half
from labctl.stats.stopping import CONTROL_FACTOR, is_narrow
from labctl.stats.streaks import independent
from labctl.stats.verdict import Rule

if TYPE_CHECKING:
    import numpy as np

_USUAL = Statistics()  # the defaults of lab.yaml
_SEEN_FROM = 20  # blocks, from which streaks are mostly seen
_CONSTANT = 1e-12
_BATCH = 250  # runs at a time, about 10 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The number of cells (without the baseline), blocks and repetitions, and the stopping rule.

    Without `stop_at_half_width` (on the log scale) all `blocks_max` blocks are measured.
    """

    name: str
    cells: int = 12
    blocks_min: int = _USUAL.blocks.min
    blocks_max: int = _USUAL.blocks.max
    repetitions: int | Literal["auto"] = _USUAL.repetitions
    stop_at_half_width: float | None = _USUAL.stop_at_half_width


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRates:
    """The counts of many simulated runs with one noise model and one design.

    Shares: 0.05 is 5 %. `coverage`: intervals that contain the true value, each cell's for
    itself; with noise between runs the interval of `run_noise.widened`, and the mean over runs.
    `any_difference` and `any_verdict`: runs in which any
    cell differs, or is faster or slower, although nothing changed. `any_verdict_at_margin`: the
    latter when all
    changes are at most the minimum effect. `any_same`: runs in which any cell is called the
    same, although all changes are the minimum effect. `same`: unchanged cells with that verdict.
    `power`: cells found faster that are faster by `effect`. `warned`: cells with the warning that
    blocks in a row are alike. `blocks` is the mean number of blocks, `*_error` are standard
    errors over runs. Nothing `is_promised` for streaks in few blocks, which cannot show them.
    """

    noise: str
    design: str
    coverage: float
    coverage_error: float
    any_difference: float
    any_difference_error: float
    any_verdict: float
    any_verdict_at_margin: float
    any_same: float
    any_same_error: float
    same: float
    power: float
    blocks: float
    warned: float
    warned_error: float
    has_streaks: bool
    is_promised: bool
    effect: float
    runs: int

    @property
    def kept(self) -> bool:
        """Whether the requirements are met, with a tolerance of two standard errors.

        They are a coverage of 93 to 97 %, and false differences, and cells falsely called the
        same, in at most 5 % of the runs; and warnings of streaks for at most 5 % of the cells,
        or at least half of them with streaks. True where nothing `is_promised`.
        """
        if not self.is_promised:
            return True
        grant = 2 * self.coverage_error
        return (
            0.93 - grant <= self.coverage <= 0.97 + grant
            and self.any_difference <= 0.05 + 2 * self.any_difference_error
            and self.any_same <= 0.05 + 2 * self.any_same_error
            and self._warns_rightly
        )

    @property
    def _warns_rightly(self) -> bool:
        if self.has_streaks:
            return self.warned >= 0.5 - 2 * self.warned_error
        return self.warned <= 0.05 + 2 * self.warned_error

    def document(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {**asdict(self), "kept": self.kept}


DESIGNS = (
    Design(name="10 blocks", blocks_min=10, blocks_max=10, stop_at_half_width=None),
    Design(name=f"{_USUAL.blocks.min} to {_USUAL.blocks.max} blocks"),
    Design(name=f"{_USUAL.blocks.min} to {_USUAL.blocks.max} blocks, auto", repetitions="auto"),
)
EFFECT = 0.1  # the effect for `power`


def simulate(
    *,
    runs: int,
    seed: int,
    rule: Rule,
    noises: Sequence[Noise] = NOISES,
    designs: Sequence[Design] = DESIGNS,
    report: Callable[[str, int], None] = lambda _what, _done: None,
) -> Iterator[ErrorRates]:
    """Yield the counts for each noise model and design.

    `report` receives its name and the number of finished `runs`. Raises ValueError for
    fewer than 2 runs.
    """
    import numpy as np

    if runs < 2:
        raise ValueError("expected at least 2 runs")
    for number, noise in enumerate(noises):
        for of_noise, design in enumerate(designs):
            draw = np.random.default_rng([seed, number, of_noise])
            counted = []
            for done in range(0, runs, _BATCH):
                report(f"{noise.name}, {design.name}", done)
                counted.append(_runs(noise, design, rule, draw, min(_BATCH, runs - done)))
            yield _rates(noise, design, np.concatenate(counted))


def _rates(noise: Noise, design: Design, counted: np.ndarray) -> ErrorRates:
    means = counted.mean(axis=0)
    errors = counted.std(axis=0, ddof=1) / math.sqrt(len(counted))
    return ErrorRates(
        noise=noise.name,
        design=design.name,
        coverage=float(means[0]),
        coverage_error=float(errors[0]),
        any_difference=float(means[1]),
        any_difference_error=float(errors[1]),
        any_verdict=float(means[2]),
        any_verdict_at_margin=float(means[3]),
        any_same=float(means[4]),
        any_same_error=float(errors[4]),
        same=float(means[5]),
        power=float(means[6]),
        blocks=float(means[7]),
        warned=float(means[8]),
        warned_error=float(errors[8]),
        has_streaks=noise.streak > 1,
        is_promised=noise.streak == 1 or design.blocks_max >= _SEEN_FROM,
        effect=EFFECT,
        runs=len(counted),
    )


def _runs(
    noise: Noise, design: Design, rule: Rule, draw: np.random.Generator, runs: int
) -> np.ndarray:
    """Return a row of counts for each run, in the order of the fields of `ErrorRates`."""
    import numpy as np

    d = log_ratios(noise, design, draw, runs)
    blocks = last_blocks(d, design, rule.confidence)
    mean, sd = (_at(moment[..., 1:], blocks) for moment in moments(d))
    count = _at(independent_after(d)[..., 1:], blocks)
    tests = t_tests(
        mean, _error(sd, count), count - 1, confidence=rule.confidence, margin=rule.margin
    )
    half, error = tests.half_width, mean
    if noise.run_sd:  # the interval that also holds for another run
        half = widened_half(half, _USUAL.confidence, noise.run_sd)
        error = mean + draw.normal(0, noise.run_sd, mean.shape)
    holds, is_warned = np.abs(error) <= half, count < blocks
    words = verdicts(mean, sd, count, rule)
    at_margin = verdicts(mean + rule.margin, sd, count, rule)
    improved = verdicts(mean + math.log1p(EFFECT), sd, count, rule)
    return np.stack(
        [
            holds.mean(axis=1),
            (holm(tests.p) <= rule.alpha).any(axis=1),
            np.isin(words, ("faster", "slower")).any(axis=1),
            np.isin(at_margin, ("faster", "slower")).any(axis=1),
            (at_margin == "same").any(axis=1),
            (words == "same").mean(axis=1),
            (improved == "faster").mean(axis=1),
            blocks.mean(axis=1),
            is_warned.mean(axis=1),
        ],
        axis=1,
    )


def log_ratios(noise: Noise, design: Design, draw: np.random.Generator, runs: int) -> np.ndarray:
    """Return the log ratios of runs x blocks_max blocks x cells, the A/A control as first cell.

    The others are compared with the mean of the baseline and the A/A control.
    """
    import numpy as np

    repetitions = MOST if design.repetitions == "auto" else design.repetitions
    shape = (runs, design.blocks_max, repetitions, design.cells + 2)
    logs = np.moveaxis(times(noise, draw, shape)[0], 3, 1)
    if design.repetitions == "auto":
        goal = Goal(_USUAL.confidence, design.stop_at_half_width, design.blocks_min)
        logs, _ = thinned(logs, goal, noise.scale)
    return of_logs(logs, noise.scale)


def moments(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each cell after each block; after one, 0."""
    import numpy as np

    blocks = np.arange(1, d.shape[1] + 1)[:, None]
    mean = np.cumsum(d, axis=1) / blocks
    squares = np.cumsum(d**2, axis=1) - blocks * mean**2
    return mean, np.sqrt(np.maximum(squares, 0) / np.maximum(blocks - 1, 1))


def independent_after(d: np.ndarray) -> np.ndarray:
    """Return the number of independent blocks of each cell after each block (`streaks`)."""
    import numpy as np

    blocks = np.arange(1, d.shape[1] + 1)[:, None]
    total = np.cumsum(d, axis=1)
    mean = total / blocks
    products = np.zeros_like(d)
    products[:, 1:] = np.cumsum(d[:, 1:] * d[:, :-1], axis=1)
    products += (blocks - 1) * mean**2 - mean * (2 * total - d[:, :1] - d)
    squares = np.cumsum(d**2, axis=1) - blocks * mean**2
    is_known = (blocks >= MINIMUM_BLOCKS) & (squares > 0)
    correlation = np.where(is_known, products / np.where(squares > 0, squares, 1), 0)
    return independent(correlation, np.broadcast_to(blocks, d.shape).astype(float))


def last_blocks(d: np.ndarray, design: Design, confidence: float) -> np.ndarray:
    """Return the number of blocks after which each compared cell ends: runs x cells."""
    import numpy as np

    ends = np.full((d.shape[0], d.shape[2]), design.blocks_max)
    if design.stop_at_half_width is None:
        return ends[:, 1:]
    _, sd = moments(d)
    sd *= np.sqrt(np.arange(1, d.shape[1] + 1)[:, None] / independent_after(d))
    sd[..., 0] *= CONTROL_FACTOR
    for count in range(design.blocks_min, design.blocks_max):
        blocks = np.minimum(ends, count)  # ended cells keep their number of blocks
        narrow = is_narrow(
            _at(sd, blocks), blocks, confidence=confidence, half_width=design.stop_at_half_width
        )
        narrow[:, 0] = False  # the A/A control is never ended
        ends[narrow & (ends > count)] = count
    return ends[:, 1:]


def _at(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.take_along_axis(values, blocks[:, None, :] - 1, axis=1)[:, 0]


def verdicts(mean: np.ndarray, sd: np.ndarray, blocks: np.ndarray, rule: Rule) -> np.ndarray:
    """Return the verdicts of `verdict.word` for runs x cells; a run's cells are one family.

    `blocks` are the numbers of independent blocks.
    """
    import numpy as np

    tests = t_tests(
        mean, _error(sd, blocks), blocks - 1, confidence=rule.confidence, margin=rule.margin
    )
    is_beyond = holm(tests.p_beyond) <= rule.alpha
    other = np.where(holm(tests.p_same) <= rule.alpha, "same", "undecided")
    return np.where(is_beyond, np.where(mean > 0, "faster", "slower"), other)


def _error(sd: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return the standard error of a mean; above 0, since counts may be equal in all blocks."""
    import numpy as np

    found: np.ndarray = np.maximum(sd, _CONSTANT) / np.sqrt(blocks)
    return found
