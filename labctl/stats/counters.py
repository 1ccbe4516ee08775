"""Which of hundreds of counters changed: paired t tests, false discovery rate. Pure.

The unit is the block, as for the metric: a counter's value is the mean over the observed
repetitions of a block. As for the metric, the baseline of a block is the mean of the baseline
and its A/A control. The test is on the scale of the inverse hyperbolic sine: a logarithm for
large numbers that also takes 0 and negative ones. Hundreds of counters are one family,
over all cells of an experiment; the correction is that of Y. Benjamini and Y. Hochberg,
J. R. Stat. Soc. B 57, 1995. At a rate of 1 %, a run without any difference reports nothing in
about 99 of 100 cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from labctl.observers import OBSERVERS
from labctl.observers.observer import is_observed, is_time
from labctl.observers.stacks import functions_of
from labctl.runs.sample import Sample
from labctl.stats.cells import Cell, bases_for
from labctl.stats.explanation_types import CellChanges, Change, FunctionTime
from labctl.stats.paired import MINIMUM_BLOCKS, adjust, t_tests
from labctl.status import SampleStatus

if TYPE_CHECKING:
    import numpy as np

Values = Mapping[int, Mapping[str, float]]  # by block and counter
Derived = Callable[[Mapping[str, float]], Mapping[str, float]]

RATE = 0.01
_FUNCTIONS = 20
_CONSTANT = 1e-12  # a spread below the precision of a double
_LARGEST_LOG = 700.0  # larger values overflow in exp()


@dataclass(frozen=True, slots=True)
class Tests:
    """Tests of all counters of a cell against its bases; the arrays are over `names`.

    `base` is the mean of the bases. `p` is NaN where there is nothing to test: fewer than 6
    blocks have both values, or all values are equal. `mean` and `half_width` are of the
    differences on the test's scale, `difference` and `reach` of the plain differences.
    """

    names: Sequence[str]
    blocks: int
    base: np.ndarray
    cell: np.ndarray
    p: np.ndarray
    mean: np.ndarray
    half_width: np.ndarray
    difference: np.ndarray
    reach: np.ndarray
    is_positive: np.ndarray

    def p_values(self) -> list[float | None]:
        """Return `p` with None where there is nothing to test."""
        return [None if p != p else float(p) for p in self.p]


def values_of(cell: Cell, of: Derived = functions_of) -> dict[int, dict[str, float]]:
    """Return the mean of each counter over the observed repetitions of each block.

    `of` makes the counters to compare from those of a sample.
    """
    found: dict[int, list[Mapping[str, float]]] = {}
    for sample in cell.samples:
        counters = of(observed_of(sample))
        if counters and sample.status == SampleStatus.OK:
            found.setdefault(sample.block, []).append(counters)
    return {block: _mean(each) for block, each in found.items()}


def observed_of(sample: Sample) -> dict[str, int]:
    """Return the observers' counters of a sample, none if it was not observed."""
    return {name: count for name, count in sample.counters.items() if is_observed(name)}


def _mean(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if len(each) == 1:
        return dict(each[0])
    found = {}
    for name in dict.fromkeys(name for counters in each for name in counters):
        if _is_sparse(name):
            found[name] = fmean(counters.get(name, 0) for counters in each)
        elif all(name in counters for counters in each):
            found[name] = fmean(counters[name] for counters in each)
    return found


def _is_sparse(name: str) -> bool:
    """Return whether a counter is only listed above 0, as functions that were called."""
    observer = OBSERVERS.get(name.partition(".")[0])
    return observer is not None and observer.disturbs


def tests(cell: Values, bases: Sequence[Values], confidence: float) -> Tests:
    """Return the tests of all counters; the arguments are of `values_of`."""
    import numpy as np

    blocks = sorted(cell.keys() & set().union(*bases))
    present = [each.get(block, {}) for each in (cell, *bases) for block in blocks]
    names = sorted({name for values in present for name in values})
    table = np.array([[_value(values, name) for name in names] for values in present])
    table = table.reshape(1 + len(bases), len(blocks), len(names))
    own, others = table[0], table[1:]
    is_pair = np.isfinite(own) & np.isfinite(others).any(axis=0)
    own, others = np.where(is_pair, own, np.nan), np.where(is_pair, others, np.nan)
    base, count = _mean_over(others), is_pair.sum(axis=0)
    # The same for both kernels, so leaving out these counters does not favour a result.
    is_constant = np.nan_to_num(_range(own, *others)) <= 0
    tested = (count >= MINIMUM_BLOCKS) & ~is_constant
    # The mean on the scale of the test: without a difference, the test's mean is then 0.
    scaled = _compare(np.arcsinh(own) - _mean_over(np.arcsinh(others)), count, confidence)
    plain = _compare(own - base, count, confidence)
    positive = np.nan_to_num(np.fmin.reduce([own, *others]), nan=1.0) > 0
    return Tests(
        names=names,
        blocks=len(blocks),
        base=_column_means(base, count),
        cell=_column_means(own, count),
        p=np.where(tested, scaled.p, np.nan),
        mean=scaled.mean,
        half_width=scaled.half_width,
        difference=plain.mean,
        reach=plain.half_width,
        is_positive=positive.all(axis=0),
    )


def _value(counters: Mapping[str, float], name: str) -> float:
    """Return a counter of a block, NaN if it has none; without counters, all are NaN."""
    return counters.get(name, 0.0 if counters and _is_sparse(name) else math.nan)


def _mean_over(bases: np.ndarray) -> Any:  # noqa: ANN401
    """Return the mean over the bases that have a value, NaN where none has."""
    import numpy as np

    count = np.isfinite(bases).sum(axis=0)
    return np.where(count > 0, np.nansum(bases, axis=0) / np.maximum(count, 1), np.nan)


@dataclass(frozen=True, slots=True)
class _Compared:
    mean: Any
    half_width: Any
    p: Any


def _compare(d: np.ndarray, count: np.ndarray, confidence: float) -> _Compared:
    """Return mean, half-width and p of each column; a constant difference is certain."""
    import numpy as np

    mean = _column_means(d, count)
    squares = np.nansum((d - mean) ** 2, axis=0) / np.maximum(count - 1, 1)
    sd = np.sqrt(squares)
    is_constant = sd <= _CONSTANT * np.maximum(1.0, np.abs(mean))
    error = np.where(is_constant, 1.0, sd) / np.sqrt(np.maximum(count, 1))
    found = t_tests(mean, error, np.maximum(count - 1, 1), confidence=confidence, margin=0.0)
    p = np.where(is_constant, np.where(mean == 0, 1.0, 0.0), found.p)
    return _Compared(mean, np.where(is_constant, 0.0, found.half_width), p)


def _column_means(values: np.ndarray, count: np.ndarray) -> Any:  # noqa: ANN401
    import numpy as np

    return np.nansum(values, axis=0) / np.maximum(count, 1)


def _range(*tables: np.ndarray) -> Any:  # noqa: ANN401
    import numpy as np

    rows = np.concatenate(tables)
    if not len(rows):
        return np.zeros(rows.shape[1])
    return np.fmax.reduce(rows, axis=0) - np.fmin.reduce(rows, axis=0)


def changes(
    cells: Sequence[Cell],
    baselines: Sequence[Cell],
    *,
    confidence: float,
    controls: Sequence[Cell] = (),
    left_out: Iterable[str] = (),
) -> list[CellChanges]:
    """Return the counters of each cell that differ from the baseline's, by one family.

    `controls` are the A/A controls, which count as further boots of their baseline.

    The most important are first: times before counts, each by the smallest difference
    that its interval contains, weighted by its share of the counter. `left_out` are
    counters that may not be reported.
    """
    known = {id(base): values_of(base) for base in (*baselines, *controls)}
    found = []
    for cell in cells:
        bases = [known[id(base)] for base in bases_for(cell, baselines, controls)]
        found.append(tests(values_of(cell), bases, confidence))
    corrected = iter(adjust([p for each in found for p in each.p_values()], method="fdr_bh"))
    return [
        _changes(cell, each, [next(corrected) for _ in each.names], frozenset(left_out))
        for cell, each in zip(cells, found, strict=True)
    ]


def _changes(
    cell: Cell, found: Tests, corrected: Sequence[float | None], left_out: frozenset[str]
) -> CellChanges:
    changed = [
        _change(found, index, p)
        for index, p in enumerate(corrected)
        if p is not None and p <= RATE and found.names[index] not in left_out
    ]
    return CellChanges(
        cell=cell.id,
        kernel=cell.kernel,
        label=cell.label,
        setting=dict(cell.setting),
        blocks=found.blocks,
        counters=sum(p is not None for p in corrected),
        changed=len(changed),
        changes=tuple(sorted(changed, key=_rank)),
        functions=tuple(_functions(found, {change.counter for change in changed})),
    )


def _functions(found: Tests, changed: Collection[str]) -> list[FunctionTime]:
    """Return the functions with the longest own time in either kernel."""
    every = [
        FunctionTime(
            function=name.removeprefix("functions.").removesuffix(".nanoseconds"),
            baseline=float(found.base[index]),
            cell=float(found.cell[index]),
            difference=float(found.difference[index]),
            changed=name in changed,
        )
        for index, name in enumerate(found.names)
        if name.startswith("functions.") and is_time(name)
    ]
    every.sort(key=lambda each: -max(each.baseline, each.cell))
    return every[:_FUNCTIONS]


def _change(found: Tests, index: int, corrected: float) -> Change:
    import numpy as np

    difference, reach = float(found.difference[index]), float(found.reach[index])
    mean, half = float(found.mean[index]), float(found.half_width[index])
    positive = bool(found.is_positive[index])
    bounds = np.exp(np.clip([mean - half, mean, mean + half], -_LARGEST_LOG, _LARGEST_LOG))
    low, middle, high = map(float, bounds)
    return Change(
        counter=found.names[index],
        baseline=float(found.base[index]),
        cell=float(found.cell[index]),
        difference=difference,
        difference_ci=(difference - reach, difference + reach),
        ratio=middle if positive else None,
        ratio_ci=(low, high) if positive else None,
        p=float(found.p[index]),
        p_corrected=corrected,
    )


def _rank(change: Change) -> tuple[bool, float, str]:
    """Return the sort key of a counter: the squared difference over the value.

    For counts that is about the chi-squared statistic of two Poisson numbers. A time that
    only contains another one, such as that of an outer lock, has the same difference but a
    smaller share.
    """
    low, high = change.difference_ci
    certain = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    whole = max(abs(change.baseline), abs(change.cell))
    return (not is_time(change.counter), -(certain**2) / whole if whole else 0.0, change.counter)
