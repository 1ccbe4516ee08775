"""Samples sorted into cells, and each cell's blocks boiled down to one number. Pure."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import attrgetter
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any, TypeVar

from labctl.results.failures import NOT_FAILURES
from labctl.results.store import Sample, Scalar

if TYPE_CHECKING:
    import numpy as np

_T = TypeVar("_T")
Metric = Callable[[Sample], float | None]
NANOSECONDS = 1e-9
OUTLIER_SDS = 4.0  # of normal times one in 16000 is so far out
_FEWEST_FOR_OUTLIERS = 6
_IN_TIME = attrgetter("block", "order", "warmup", "repetition")
_CRASHES = frozenset({"boot-failed", "panic", "splat", "hung", "lost"})


@dataclass(frozen=True, slots=True)
class _Good:
    """The repetitions that count: `mask` picks them from those that are ok."""

    mask: np.ndarray
    blocks: np.ndarray
    values: np.ndarray

    def logs(self) -> dict[int, float]:
        """Return the log of the median of each block."""
        import numpy as np

        order = np.argsort(self.blocks, kind="stable")
        blocks, first = np.unique(self.blocks[order], return_index=True)
        groups = np.split(self.values[order], first[1:])
        return {
            int(block): math.log(np.median(group))
            for block, group in zip(blocks, groups, strict=False)
        }


@dataclass(frozen=True, slots=True)
class Cell:
    """All samples of one cell, those of warm-ups apart."""

    id: str
    kernel: str
    label: str
    is_control: bool
    setting: Mapping[str, Scalar]
    parameters: Mapping[str, Scalar]
    samples: tuple[Sample, ...]
    warmups: tuple[Sample, ...]
    # What was asked for once: a cell may have a million samples.
    _asked: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """How messages call the cell: its kernel and what makes it another cell."""
        if self.is_control:
            return "the A/A control"
        return " ".join([self.kernel, *(f"{k}={v}" for k, v in sorted(self.setting.items()))])

    @property
    def seen_blocks(self) -> set[int]:
        """The blocks in which the cell was visited, whatever came of it."""
        return self._once("blocks", lambda: {s.block for s in (*self.samples, *self.warmups)})

    def count(self, metric: Metric) -> int:
        """Return how many repetitions count."""
        return len(self._good(metric).values)

    def logs(self, metric: Metric) -> dict[int, float]:
        """The log of the median of each block's repetitions."""
        return self._once(("logs", metric), lambda: self._good(metric).logs())

    def not_ok(self) -> dict[str, int]:
        """Count the samples of each status but ok; of warm-ups only what failed.

        A value of which there is no logarithm is bad output.
        """
        return self._once("not_ok", self._count_not_ok)

    def _count_not_ok(self) -> dict[str, int]:
        counts = Counter(s.status for s in self.samples if s.status != "ok")
        counts.update(s.status for s in self.warmups if s.status not in NOT_FAILURES)
        unusable = len(self._ok()) - self.count(primary)
        counts.update({"bad-output": unusable} if unusable else {})
        return dict(sorted(counts.items()))

    def _ok(self) -> list[Sample]:
        return self._once("ok", lambda: [s for s in self.samples if s.status == "ok"])

    def _good(self, metric: Metric) -> _Good:
        return self._once(("good", metric), lambda: _good(self._ok(), metric))

    def _once(self, what: object, find: Callable[[], _T]) -> _T:
        if what not in self._asked:
            self._asked[what] = find()
        found: _T = self._asked[what]
        return found

    def outliers(self) -> list[tuple[int, float]]:
        """Return block and factor (of the cell's median) of repetitions that lie far out.

        That is beyond four robust standard deviations, and 10 %. They count like all
        others, within the median of their block.
        """
        import numpy as np
        from scipy.stats import median_abs_deviation

        good = self._good(primary)
        if len(good.values) < _FEWEST_FOR_OUTLIERS:
            return []
        logs = np.log(good.values)
        rest = logs - np.median(logs)
        reach = max(OUTLIER_SDS * median_abs_deviation(logs, scale="normal"), math.log(1.1))
        far = np.abs(rest) > reach
        return list(zip(good.blocks[far].tolist(), np.exp(rest[far]).tolist(), strict=True))

    def counters(self) -> dict[str, float]:
        """The median of each counter over the good repetitions."""
        found: dict[str, list[int]] = {}
        for sample in compress(self._ok(), self._good(primary).mask):
            for name, count in sample.counters.items():
                found.setdefault(name, []).append(count)
        return {name: float(median(counts)) for name, counts in sorted(found.items())}


def _good(samples: Sequence[Sample], metric: Metric) -> _Good:
    import numpy as np

    values = np.array([metric(sample) for sample in samples], dtype=float)  # None becomes NaN
    mask = np.isfinite(values) & (values > 0)
    blocks = np.array([sample.block for sample in samples], dtype=int)
    return _Good(mask, blocks[mask], values[mask])


def primary(sample: Sample) -> float | None:
    """The metric of the experiment."""
    return sample.value


def memory_back_seconds(sample: Sample) -> float | None:
    """The time until every node has its memory back, None where it was not measured."""
    return _seconds(sample, "memory_back_nanoseconds")


def cpu_seconds(sample: Sample) -> float | None:
    """The CPU time of the operation and of whoever worked for it, None if not measured.

    What others took is counted in ticks of 10 ms, over all that ran meanwhile.
    """
    own = _seconds(sample, "cpu_nanoseconds")
    return None if own is None else own + (_seconds(sample, "other_cpu_nanoseconds") or 0.0)


# What is compared beside the metric of the experiment, by the same method.
SECONDARY: Mapping[str, Metric] = {"memory_back": memory_back_seconds, "cpu": cpu_seconds}


def _seconds(sample: Sample, name: str) -> float | None:
    value = sample.measurements.get(name)
    # JSON has no other numbers, and true is none; exact types are quick to compare.
    return value * NANOSECONDS if type(value) is int or type(value) is float else None


def crashes(cells: Iterable[Cell]) -> dict[str, dict[str, int]]:
    """Count, for each kernel, what befell its guests as a whole.

    A guest serves several cells, and its crash is told by the one that was there.
    """
    counts: dict[str, Counter[str]] = {}
    for cell in cells:
        of_cell = {k: n for k, n in cell.not_ok().items() if k in _CRASHES}
        counts.setdefault(cell.kernel, Counter()).update(of_cell)
    return {kernel: dict(sorted(count.items())) for kernel, count in counts.items()}


def crashed_boots(cells: Iterable[Cell]) -> tuple[int, int]:
    """Return how many boots of some cells crashed, and how many there were."""
    boots: dict[tuple[int, str], bool] = {}
    for cell in cells:
        for sample in (*cell.samples, *cell.warmups):
            key = (sample.block, sample.boot_id)
            boots[key] = boots.get(key, False) or sample.status in _CRASHES
    return sum(boots.values()), len(boots)


def failures(not_ok: Mapping[str, int]) -> int:
    """How many samples show that something went wrong, of those that `Cell.not_ok` counts."""
    return sum(count for status, count in not_ok.items() if status not in NOT_FAILURES)


def cells_of(samples: Iterable[Sample]) -> list[Cell]:
    """Sort samples into cells, in an order that does not depend on that of the samples."""
    groups: dict[tuple[str, str, bool], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.cell, sample.kernel, sample.control), []).append(sample)
    return sorted(map(_cell, groups.values()), key=_order)


def baseline_for(cell: Cell, baselines: Sequence[Cell]) -> Cell | None:
    """Return the baseline of the same workload parameters, None if there is none.

    Where the baseline's kernel has settings of its own, the one that shares most with the cell.
    """
    fitting = [
        b
        for b in baselines
        if _same(b.parameters, cell.parameters)
        and all(cell.setting.get(k, v) == v for k, v in b.setting.items())
    ]
    return max(fitting, key=lambda b: len(b.setting.items() & cell.setting.items()), default=None)


def mean_and_spread(logs: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the geometric mean and the coefficient of variation in percent of block medians."""
    if not logs:
        return None, None
    values = [math.exp(log) for log in sorted(logs)]
    spread = 100 * stdev(values) / fmean(values) if len(values) > 1 else None
    return math.exp(fmean(sorted(logs))), spread


def _cell(samples: Sequence[Sample]) -> Cell:
    first = min(samples, key=_IN_TIME)
    return Cell(
        id=first.cell,
        kernel=first.kernel,
        label=first.label,
        is_control=first.control,
        setting=first.setting,
        parameters=first.parameters,
        samples=tuple(s for s in samples if not s.warmup),
        warmups=tuple(s for s in samples if s.warmup),
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
