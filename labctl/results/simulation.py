"""Does the method keep what it promises? Simulated runs through the lab's own statistics. Pure.

A simulated run has what real ones have: repetitions and boots that scatter, a
host that drifts while the cells take their turns, outliers. The truth is known,
so that intervals that miss it, and verdicts that are wrong, can be counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from labctl.lab_models import Statistics
from labctl.results.paired import Paired, adjust, paired
from labctl.results.verdict import Rule, word

if TYPE_CHECKING:
    import numpy as np

_USUAL = Statistics()  # of a lab.yaml that says nothing of it
_BURN_IN = 50  # visits until the drift has forgotten where it began


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How times scatter, as standard deviations of their logs.

    `drift_sd` is of an AR(1) process over the visits in their order in time, with
    the correlation `drift_memory` from one visit to the next. A repetition is an
    outlier with the chance `outliers`, a whole boot with `spoilt_boots`; either
    takes `outlier_factor` times as long.
    """

    name: str
    boot_sd: float = 0.015
    repetition_sd: float = 0.04
    drift_sd: float = 0.0
    drift_memory: float = 0.9
    outliers: float = 0.0
    spoilt_boots: float = 0.0
    outlier_factor: float = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How many cells beside the baseline, blocks and repetitions; when a run ends.

    Without `stop_at_half_width` (on the log scale) all `blocks_max` are measured.
    """

    name: str
    cells: int = 12
    blocks_min: int = _USUAL.blocks.min
    blocks_max: int = _USUAL.blocks.max
    repetitions: int = _USUAL.repetitions
    stop_at_half_width: float | None = _USUAL.stop_at_half_width


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What was counted in many simulated runs of one noise and one design.

    All but the last three are shares (0.05 is 5 %): `coverage` of the intervals that
    hold the truth; runs in which any of the cells was said to differ (`any_difference`)
    or to be faster or slower (`any_verdict`) though nothing changed, and the latter
    though all changed by no more than the smallest change that matters
    (`any_verdict_at_margin`); `same` and `power` of the cells that were found the
    same when they were, and faster when they were by `effect`. `*_error` are
    standard errors over runs.
    """

    noise: str
    design: str
    coverage: float
    coverage_error: float
    any_difference: float
    any_difference_error: float
    any_verdict: float
    any_verdict_at_margin: float
    same: float
    power: float
    blocks: float
    effect: float
    runs: int

    @property
    def kept(self) -> bool:
        """Whether the promise is kept, as far as so many runs can tell.

        Coverage of 93 to 97 %, and false differences in at most 5 % of the runs;
        two standard errors are granted.
        """
        grant = 2 * self.coverage_error
        return (
            0.93 - grant <= self.coverage <= 0.97 + grant
            and self.any_difference <= 0.05 + 2 * self.any_difference_error
        )

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "kept": self.kept}


# Boots and repetitions scatter as in our own guests (exit and munmap of 3 GiB); a
# drift of 5 % and the outliers are more than was seen there.
NOISES = (
    Noise(name="measured"),
    Noise(name="drift", drift_sd=0.05),
    Noise(name="slow-repetitions", outliers=0.05),
    Noise(name="spoilt-boots", spoilt_boots=0.1, drift_sd=0.02),
)
DESIGNS = (
    Design(name="10 blocks", blocks_min=10, blocks_max=10, stop_at_half_width=None),
    Design(name=f"{_USUAL.blocks.min} to {_USUAL.blocks.max} blocks"),
)
EFFECT = 0.1  # of which `power` tells


def simulate(
    *,
    runs: int,
    seed: int,
    rule: Rule,
    noises: Sequence[Noise] = NOISES,
    designs: Sequence[Design] = DESIGNS,
    tell: Callable[[str, int], None] = lambda _what, _done: None,
) -> Iterator[Promise]:
    """Yield what was counted, for each noise and each design.

    `tell` hears which of them, and how many of its `runs` are done. Raises ValueError
    for fewer than two runs.
    """
    import numpy as np

    if runs < 2:
        raise ValueError("fewer than two runs have no spread")
    for number, noise in enumerate(noises):
        for of_noise, design in enumerate(designs):
            draw = np.random.default_rng([seed, number, of_noise])
            counted = []
            for done in range(runs):
                tell(f"{noise.name}, {design.name}", done)
                counted.append(_run(noise, design, rule, draw))
            yield _promise(noise, design, np.array(counted))


def _promise(noise: Noise, design: Design, counted: np.ndarray) -> Promise:
    means = counted.mean(axis=0)
    errors = counted.std(axis=0, ddof=1) / math.sqrt(len(counted))
    return Promise(
        noise=noise.name,
        design=design.name,
        coverage=float(means[0]),
        coverage_error=float(errors[0]),
        any_difference=float(means[1]),
        any_difference_error=float(errors[1]),
        any_verdict=float(means[2]),
        any_verdict_at_margin=float(means[3]),
        same=float(means[4]),
        power=float(means[5]),
        blocks=float(means[6]),
        effect=EFFECT,
        runs=len(counted),
    )


def _run(noise: Noise, design: Design, rule: Rule, draw: np.random.Generator) -> list[float]:
    """Return one run's counts, in the order of the fields of Promise."""
    logs = boots(noise, design, draw)
    d = logs[:, :1] - logs[:, 1:]
    blocks = stops_after(d, design, rule.confidence)
    columns = d[:blocks].T.tolist()
    results = _shifted(columns, 0.0, rule)
    improved = _shifted(columns, math.log1p(EFFECT), rule)
    differs = adjust([one.p for one in results])
    words = _words(results, rule)
    return [
        _share(abs(one.mean) <= (one.half_width or 0.0) for one in results),
        float(any(p is not None and p <= rule.alpha for p in differs)),
        float(_is_any_found(words)),
        float(_is_any_found(_words(_shifted(columns, rule.margin, rule), rule))),
        _share(said == "same" for said in words),
        _share(said == "faster" for said in _words(improved, rule)),
        float(blocks),
    ]


def boots(noise: Noise, design: Design, draw: np.random.Generator) -> np.ndarray:
    """Return the log of the median of each boot: blocks_max rows, baseline and cells as columns."""
    import numpy as np

    shape = (design.blocks_max, design.cells + 1)
    times = draw.normal(0, noise.repetition_sd, (*shape, design.repetitions))
    times += math.log(noise.outlier_factor) * (draw.random(times.shape) < noise.outliers)
    own = draw.normal(0, noise.boot_sd, shape)
    own += math.log(noise.outlier_factor) * (draw.random(shape) < noise.spoilt_boots)
    # The cells of a block take their turns in an order that is drawn anew.
    order = draw.permuted(np.tile(np.arange(shape[1]), (shape[0], 1)), axis=1)
    of_host = np.take_along_axis(_drift(noise, draw, shape), order, axis=1)
    logs: np.ndarray = np.median(times, axis=2) + own + of_host
    return logs


def _drift(noise: Noise, draw: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    import numpy as np
    from scipy.signal import lfilter

    if not noise.drift_sd:
        return np.zeros(shape)
    sd = noise.drift_sd * math.sqrt(1 - noise.drift_memory**2)
    steps = draw.normal(0, sd, _BURN_IN + shape[0] * shape[1])
    steps = lfilter([1.0], [1.0, -noise.drift_memory], steps)
    drift: np.ndarray = steps[_BURN_IN:].reshape(shape)
    return drift


def stops_after(d: np.ndarray, design: Design, confidence: float) -> int:
    """Return after how many blocks the run ends: it looks at each block's end, from the least."""
    import numpy as np
    from scipy.stats import t

    if design.stop_at_half_width is None:
        return design.blocks_max
    for blocks in range(design.blocks_min, design.blocks_max):
        quantile = float(t.ppf((1 + confidence) / 2, blocks - 1))
        widths = quantile * np.std(d[:blocks], axis=0, ddof=1) / math.sqrt(blocks)
        if widths.max() <= design.stop_at_half_width:
            return blocks
    return design.blocks_max


def _shifted(columns: Sequence[Sequence[float]], effect: float, rule: Rule) -> list[Paired]:
    """Return what the blocks say if all cells were better by `effect`, on the log scale."""
    return [
        paired([value + effect for value in one], confidence=rule.confidence, margin=rule.margin)
        for one in columns
    ]


def _words(results: Sequence[Paired], rule: Rule) -> list[str]:
    beyond = adjust([one.p_beyond for one in results])
    return [word(one, p, rule) for one, p in zip(results, beyond, strict=True)]


def _is_any_found(words: Sequence[str]) -> bool:
    return any(said in ("faster", "slower") for said in words)


def _share(hits: Iterator[bool]) -> float:
    found = list(hits)
    return sum(found) / len(found)
