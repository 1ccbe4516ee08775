"""Samples grouped into cells, and each cell's blocks reduced to one number. Pure."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import attrgetter
from statistics import NormalDist, fmean, median
from typing import TYPE_CHECKING, Any, TypeVar

from labctl.lab.metrics import Scale
from labctl.observers.observer import is_observed
from labctl.runs.sample import Sample, Scalar
from labctl.stats.failures import NOT_FAILURES
from labctl.stats.retried import counts as retried_by_fault
from labctl.stats.retried import not_the_kernels
from labctl.stats.scale import is_usable, of_rows, spread_of_rows
from labctl.status import CRASHES, SampleStatus

if TYPE_CHECKING:
    import numpy as np

_T = TypeVar("_T")
Metric = Callable[[Sample], float | None]
NANOSECONDS = 1e-9
OUTLIER_SDS = 4.0  # exceeded by 1 in 16000 normally distributed values
_FEWEST_FOR_OUTLIERS = 6
_QUARTILE = NormalDist().inv_cdf(0.75)  # the median absolute deviation of normal values, in SDs
_IN_TIME = attrgetter("block", "order", "warmup", "repetition")
_CELL_OF = attrgetter("cell", "kernel", "control")


@dataclass(frozen=True, slots=True)
class _Good:
    """The valid repetitions; `mask` selects them from the samples with status ok."""

    mask: np.ndarray
    blocks: np.ndarray
    repetitions: np.ndarray
    values: np.ndarray

    def table(self) -> tuple[list[int], np.ndarray]:
        """Return the blocks, and a row of repetitions for each, NaN where it has fewer."""
        import numpy as np

        order = np.lexsort((self.repetitions, self.blocks))
        blocks, first, counts = np.unique(self.blocks[order], return_index=True, return_counts=True)
        table = np.full((len(blocks), counts.max(initial=0)), np.nan)
        columns = np.arange(len(order)) - np.repeat(first, counts)
        table[np.repeat(np.arange(len(blocks)), counts), columns] = self.values[order]
        return blocks.tolist(), table

    def of_blocks(self, scale: Scale) -> dict[int, float]:
        """Return the value of each block on a scale."""
        blocks, table = self.table()
        return dict(zip(blocks, of_rows(table, scale).tolist(), strict=True)) if blocks else {}


@dataclass(frozen=True, slots=True)
class Cell:
    """All samples of one cell, with warm-ups separate; `scale` is that of its metric."""

    id: str
    kernel: str
    label: str
    is_control: bool
    setting: Mapping[str, Scalar]
    parameters: Mapping[str, Scalar]
    samples: tuple[Sample, ...]
    warmups: tuple[Sample, ...]
    scale: Scale = "ratio"
    # Cached results, since a cell may have a million samples.
    _asked: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The name of the cell in messages: its kernel and its matrix values."""
        if self.is_control:
            return "the A/A control"
        return " ".join([self.kernel, *(f"{k}={v}" for k, v in sorted(self.setting.items()))])

    @property
    def seen_blocks(self) -> set[int]:
        """The blocks in which the cell was measured, successfully or not."""
        return self._once("blocks", lambda: {s.block for s in (*self.samples, *self.warmups)})

    @property
    def hosts(self) -> dict[int, str]:
        """The host of each block."""
        return self._once("hosts", lambda: {s.block: s.host for s in self.samples})

    def count(self, metric: Metric) -> int:
        """Return the number of valid repetitions."""
        return len(self._good(metric).values)

    def of_blocks(self, metric: Metric) -> dict[int, float]:
        """The value of each block on the metric's scale: for ratios a robust mean of logs."""
        scale = self._scale(metric)
        return self._once(("blocks", metric), lambda: self._good(metric).of_blocks(scale))

    def spread(self, metric: Metric) -> float:
        """Return the standard deviation of the repetitions of a boot, 0 without pairs."""
        return spread_of_rows(self._good(metric).table()[1], self._scale(metric))

    def not_ok(self) -> dict[str, int]:
        """Return the number of samples by status, without ok; of warm-ups only failures.

        A value that the scale does not have counts as bad output: with ratios 0 and below.
        A fault of the host does not count if a fresh boot took its place.
        """
        return self._once("not_ok", self._count_not_ok)

    def _count_not_ok(self) -> dict[str, int]:
        apart = {s.key for s in not_the_kernels((*self.samples, *self.warmups))}
        counts: Counter[str] = Counter(
            s.status for s in self.samples if s.status != SampleStatus.OK and s.key not in apart
        )
        counts.update(
            s.status for s in self.warmups if s.status not in NOT_FAILURES and s.key not in apart
        )
        unusable = len(self._ok()) - self.count(primary)
        counts.update({SampleStatus.BAD_OUTPUT: unusable} if unusable else {})
        return dict(sorted(counts.items()))

    def retried(self) -> Mapping[str, int]:
        """Return the number of failures that a fresh boot measured again, by fault."""
        return self._once("retried", lambda: retried_by_fault((*self.samples, *self.warmups)))

    def _ok(self) -> list[Sample]:
        return self._once("ok", lambda: [s for s in self.samples if s.status == SampleStatus.OK])

    def _good(self, metric: Metric) -> _Good:
        return self._once(("good", metric), lambda: self._find_good(metric))

    def _find_good(self, metric: Metric) -> _Good:
        import numpy as np

        samples = self._ok()
        if metric in SECONDARY.values() and not any(sample.measurements for sample in samples):
            # As with most workloads: it takes long to ask a million samples.
            values = np.full(len(samples), np.nan)
        else:
            values = np.array([metric(sample) for sample in samples], dtype=float)  # None is NaN
        mask = is_usable(values, self._scale(metric))
        blocks, repetitions = self._ok_numbers("block"), self._ok_numbers("repetition")
        return _Good(mask, blocks[mask], repetitions[mask], values[mask])

    def _ok_numbers(self, name: str) -> np.ndarray:
        import numpy as np

        return self._once(name, lambda: np.array([getattr(s, name) for s in self._ok()], dtype=int))

    def _scale(self, metric: Metric) -> Scale:
        return self.scale if metric is primary else "ratio"

    def _once(self, what: object, find: Callable[[], _T]) -> _T:
        if what not in self._asked:
            self._asked[what] = find()
        found: _T = self._asked[what]
        return found

    def outliers(self) -> list[tuple[int, float]]:
        """Return the block of each outlier, and its ratio to the cell's median.

        Outliers are more than 4 robust standard deviations and more than 10 % from the
        median, on a run's several hosts that of the host. They still count, with less weight,
        within the mean of their block. Differences have none: their values may have any
        distribution, such as that of a rare event.
        """
        import numpy as np

        good = self._good(primary)
        if self.scale == "difference" or len(good.values) < _FEWEST_FOR_OUTLIERS:
            return []
        logs = np.log(good.values)
        rest = logs - self._middle(logs, good.blocks)
        deviation = np.median(np.abs(rest)) / _QUARTILE
        far = np.abs(rest) > max(OUTLIER_SDS * deviation, math.log(1.1))
        return list(zip(good.blocks[far].tolist(), np.exp(rest[far]).tolist(), strict=True))

    def _middle(self, logs: np.ndarray, blocks: np.ndarray) -> Any:  # noqa: ANN401
        """Return the median, or that of each value's host if there are several."""
        import numpy as np

        of_block = self.hosts
        if len(set(of_block.values())) < 2:
            return np.median(logs)
        _, hosts = np.unique([of_block[int(block)] for block in blocks], return_inverse=True)
        return np.array([np.median(logs[hosts == n]) for n in range(hosts.max() + 1)])[hosts]

    def counters(self) -> dict[str, float]:
        """The median of each counter of the series over the good repetitions."""
        found: dict[str, list[int]] = {}
        for sample in compress(self._ok(), self._good(primary).mask):
            for name, count in sample.counters.items():
                if is_observed(name):
                    continue
                found.setdefault(name, []).append(count)
        return {name: float(median(counts)) for name, counts in sorted(found.items())}


def primary(sample: Sample) -> float | None:
    """The metric of the experiment."""
    return sample.value


def memory_back_seconds(sample: Sample) -> float | None:
    """The time until every node has its memory back, None if not measured."""
    return _seconds(sample.measurements.get("memory_back_nanoseconds"))


def cpu_seconds(sample: Sample) -> float | None:
    """The CPU time of the operation and of its kernel workers, None if not measured.

    The time of other tasks has a resolution of 10 ms and includes all tasks that ran.
    """
    own = _seconds(sample.measurements.get("cpu_nanoseconds"))
    if own is None:
        return None
    return own + (_seconds(sample.measurements.get("other_cpu_nanoseconds")) or 0.0)


# Compared in addition to the metric of the experiment, by the same method.
SECONDARY: Mapping[str, Metric] = {"memory_back": memory_back_seconds, "cpu": cpu_seconds}


def _seconds(value: Any) -> float | None:  # noqa: ANN401 - of any workload
    # Exact types exclude bool, and are faster to compare than isinstance.
    return value * NANOSECONDS if type(value) is int or type(value) is float else None


def crashes(cells: Iterable[Cell]) -> dict[str, dict[str, int]]:
    """Return the number of crashes of each kernel's guests, by status.

    A guest is shared by several cells; a crash is recorded by the cell it interrupted.
    """
    counts: dict[str, Counter[str]] = {}
    for cell in cells:
        of_cell = {k: n for k, n in cell.not_ok().items() if k in CRASHES}
        counts.setdefault(cell.kernel, Counter()).update(of_cell)
    return {kernel: dict(sorted(count.items())) for kernel, count in counts.items()}


def failures(not_ok: Mapping[str, int]) -> int:
    """Return the number of failures among the counts of `Cell.not_ok`."""
    return sum(count for status, count in not_ok.items() if status not in NOT_FAILURES)


def cells_of(samples: Iterable[Sample], scale: Scale = "ratio") -> list[Cell]:
    """Group samples into cells; the order of the cells does not depend on that of samples.

    `scale` is that of the experiment's metric.
    """
    groups: defaultdict[tuple[str, str, bool], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[_CELL_OF(sample)].append(sample)
    return sorted((_cell(each, scale) for each in groups.values()), key=_order)


def baselines_for(cell: Cell, baselines: Sequence[Cell]) -> list[Cell]:
    """Return the baselines with the same workload parameters that share most of the setting.

    Of an A/A control only cells of its kernel are baselines.
    """
    fitting = [
        b
        for b in baselines
        if _same(b.parameters, cell.parameters)
        and all(cell.setting.get(k, v) == v for k, v in b.setting.items())
        and (not cell.is_control or b.kernel == cell.kernel)
    ]
    shared = [len(b.setting.items() & cell.setting.items()) for b in fitting]
    return [b for b, count in zip(fitting, shared, strict=True) if count == max(shared)]


def bases_for(cell: Cell, baselines: Sequence[Cell], controls: Sequence[Cell]) -> list[Cell]:
    """Return what a cell is compared with: its baseline and the A/A control of that baseline.

    An A/A control is compared with the baseline alone. None without a baseline; the first if
    several share as much of the setting.
    """
    found = baselines_for(cell, baselines)
    if not found:
        return []
    base = found[0]
    own = (c for c in controls if c.kernel == base.kernel and _same(c.parameters, base.parameters))
    same = (c for c in own if _same(c.setting, base.setting))
    return [base] if cell.is_control else [base, *same]


def base_of_blocks(bases: Sequence[Cell], metric: Metric) -> dict[int, float]:
    """Return the mean of the bases in each block in which any has a valid value.

    The mean of a baseline and its A/A control has half the variance of either. It is
    independent of their difference, if they are normally distributed with the same variance,
    so that the test of the A/A control stays a test of its own.
    """
    found: dict[int, list[float]] = {}
    for base in bases:
        for block, value in base.of_blocks(metric).items():
            found.setdefault(block, []).append(value)
    return {block: fmean(values) for block, values in found.items()}


def _cell(samples: Sequence[Sample], scale: Scale) -> Cell:
    block = min(sample.block for sample in samples)
    first = min((sample for sample in samples if sample.block == block), key=_IN_TIME)
    return Cell(
        id=first.cell,
        kernel=first.kernel,
        label=first.label,
        is_control=first.control,
        setting=first.setting,
        parameters=first.parameters,
        samples=tuple([s for s in samples if not s.warmup]),
        warmups=tuple([s for s in samples if s.warmup]),
        scale=scale,
    )


def _same(one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _order(cell: Cell) -> tuple[object, ...]:
    def natural(values: Mapping[str, Scalar]) -> tuple[object, ...]:
        return tuple(
            (name, isinstance(value, str), "" if isinstance(value, str) else value, str(value))
            for name, value in sorted(values.items())
        )

    return (cell.kernel, cell.is_control, natural(cell.setting), natural(cell.parameters), cell.id)
