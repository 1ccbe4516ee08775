"""Parameters of the model from the costs of a run, bootstrapped over its blocks. Pure.

All costs are relative to the baseline's time in the same block, so that the drift of the host
cancels. A block is the unit of evidence: blocks are drawn with replacement, and a prediction is
made from each draw. Percentile intervals of such draws are too narrow with few blocks (T. C.
Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69 (4),
2015). The deviations of the draws are therefore widened by the factor that makes the interval of
a mean as wide as Student's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labctl.errors import UserError
from labctl.model.needed import EXPERIMENT
from labctl.model.queueing import share_of, slowdown
from labctl.model.types import Basis, Bounds, CellCosts, Cost, Design, Inputs
from labctl.stats.paired import MINIMUM_BLOCKS

if TYPE_CHECKING:
    import numpy as np

DRAWS = 2000
SEED = 20170315
_LEAST_HANDED = 0.1
_ALL_HANDED = 0.95
_WAITS = 0.9  # of its time that a thread runs which never waits for workers
_LEAST_BUSY = 0.05
_LEAST_SHARE = 0.001  # for wide draws
_PAGE_BYTES = 4096
_LEAST_PRICE, _PRICE_CONFIDENCE = 0.95, 0.99


@dataclass(frozen=True, slots=True)
class Locks:
    """What is assumed of the locks of the nodes: shares of the work under each, a draw each."""

    basis: Basis
    shares: tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The parameters of one parallel kernel; arrays have the estimate, then a value per draw.

    Costs are relative to the baseline's time. `zap` and `free` are the costs of a page while
    `workers` run, `serial` that of the serial kernel below, `price` their quotient. `own_share`
    and `worker_share` are the shares of the elapsed time in which the thread and each worker
    ran; `worker_seconds` is the CPU time of all workers in a repetition, `nanoseconds` the
    baseline's time for a page.
    """

    kernel: str
    base: str
    design: Design
    workers: int
    blocks: int
    list_pages: float
    serial: np.ndarray
    zap: np.ndarray
    price: np.ndarray
    own_share: np.ndarray
    worker_share: np.ndarray
    worker_seconds: float
    nanoseconds: np.ndarray
    locks: tuple[Locks, ...]
    nodes: int
    measured: Mapping[int, np.ndarray]

    @property
    def free(self) -> np.ndarray:
        """The cost of freeing a page while workers run."""
        return self.serial * self.price - self.zap  # type: ignore[no-any-return]


def interval(values: np.ndarray, confidence: float) -> Bounds:
    """Return the interval of a value over the draws; the first one is the estimate itself."""
    import numpy as np

    tail = (1 - confidence) / 2
    low, high = np.quantile(values[1:], [tail, 1 - tail])
    return float(low), float(high)


def _cell(inputs: Inputs, kernel: str, workers: int) -> CellCosts | None:
    """Return the costs of a cell, None if it was not measured."""
    fitting = (c for c in inputs.cells if c.kernel == kernel and c.workers == workers)
    return next(fitting, None)


def serial_speed(inputs: Inputs, kernel: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the time of a serial kernel over the baseline's, and that in nanoseconds per page.

    Raises:
        UserError: there are too few blocks.
    """
    import numpy as np

    base, own = _serial(inputs, inputs.baseline), _serial(inputs, kernel)
    blocks = _common(inputs, kernel, base, own)
    rows = [
        (math.log(own.blocks[b].elapsed / base.blocks[b].elapsed), math.log(base.blocks[b].elapsed))
        for b in blocks
    ]
    ratio, nanoseconds = np.exp(_drawn(rows, inputs.confidence)).T
    return ratio, nanoseconds


def estimate(inputs: Inputs, kernel: str) -> Estimate:
    """Return the parameters of a parallel kernel.

    Raises:
        UserError: the run cannot show a parameter; says what must be measured.
    """
    import numpy as np

    where = f"run {inputs.run}, experiment {inputs.experiment}, kernel {kernel}"
    own = inputs.kernels[kernel]
    stock = _serial(inputs, inputs.baseline)
    base = _serial(inputs, own.base or inputs.baseline)
    levels = _levels(inputs, kernel, where)
    first, *_ = levels
    blocks = _common(inputs, kernel, stock, base, *levels)
    _check_overlap(first, blocks, own.design, where)
    rows = [_row(stock, base, levels, block) for block in blocks]
    drawn = _drawn(rows, inputs.confidence)
    serial, took, nanoseconds, *prices = np.exp(drawn[:, 2:]).T
    handed, others = drawn[:, 0], drawn[:, 1]
    spent = serial * prices[0]
    is_free = own.design is Design.FREE
    freed_alone = (1 - handed) / handed * others if is_free else 0 * others
    zap = spent * (1 - others - freed_alone) if is_free else 0 * spent
    if is_free and interval(zap, inputs.confidence)[0] <= 0:
        raise UserError(
            "zapping cannot be distinguished from freeing: its cost is not shown to be above 0",
            where=where,
            hint="measure more blocks, or more memory",
        )
    if interval(prices[0], _PRICE_CONFIDENCE)[1] < _LEAST_PRICE:
        raise UserError(
            f"the CPU time is below that of {base.kernel}: the series contains patches that "
            "also make one thread faster, and a kernel with these alone was not measured",
            where=where,
            hint="add that kernel to the experiment: node-grouped-free for the series of labctl",
        )
    own_share = (spent * (1 - others) / took).clip(_LEAST_SHARE, 1.0)
    design = own.design
    hands_all = _mean(first, blocks, "handed") > _ALL_HANDED
    if is_free and hands_all and own_share[0] < _WAITS:
        design = Design.HAND_OVER
    return Estimate(
        kernel=kernel,
        base=base.kernel,
        design=design,
        workers=first.workers,
        blocks=len(blocks),
        list_pages=first.list_pages,
        serial=serial,
        zap=zap,
        price=prices[0],
        own_share=own_share,
        worker_share=(spent * others / took / first.workers).clip(_LEAST_SHARE, 1.0),
        worker_seconds=_worker_seconds(first, blocks, inputs),
        nanoseconds=nanoseconds,
        locks=tuple(_locks(inputs, base.kernel, [one.workers + 1 for one in levels], prices)),
        nodes=inputs.nodes,
        measured=_measured(inputs, kernel, first.workers, stock, blocks),
    )


def _row(
    stock: CellCosts, base: CellCosts, levels: list[CellCosts], block: int
) -> tuple[float, ...]:
    """Return shares, and logs of ratios, so that their means are those of the reports."""
    scale, cost = stock.blocks[block].elapsed, levels[0].blocks[block]
    ratios = [
        base.blocks[block].elapsed / scale,
        cost.elapsed / scale,
        scale,
        *(_cpu(one.blocks[block]) / _cpu(base.blocks[block]) for one in levels),
    ]
    return cost.handed, cost.other / _cpu(cost), *map(math.log, ratios)


def _serial(inputs: Inputs, kernel: str) -> CellCosts:
    found = _cell(inputs, kernel, 0)
    if found is None:
        raise UserError(
            f"{kernel} was not measured without workers",
            where=f"run {inputs.run}, experiment {inputs.experiment}",
            hint=EXPERIMENT,
        )
    return found


def _levels(inputs: Inputs, kernel: str, where: str) -> list[CellCosts]:
    """Return the cells in which all workers and the thread had a core each, the fewest first.

    Of a kernel that frees in parallel, further cells count only while the thread still frees
    as well: else its workers wait for it, and not for locks.
    """
    own = sorted((c for c in inputs.cells if c.kernel == kernel), key=lambda c: c.workers)
    room = inputs.cores - 1 if inputs.cores else max(c.workers for c in own)
    fitting = [c for c in own if 0 < c.workers <= room]
    if not fitting:
        raise UserError(
            f"the fewest workers are {own[0].workers}, more than {room} beside the thread's core "
            f"of {inputs.cores}: the overlap of threads that run at the same time is not shown",
            where=where,
            hint=EXPERIMENT,
        )
    first, *rest = fitting
    is_free = inputs.kernels[kernel].design is Design.FREE
    return [first, *(c for c in rest if not is_free or _mean(c, c.blocks, "handed") < _ALL_HANDED)]


def _check_overlap(first: CellCosts, blocks: list[int], design: Design, where: str) -> None:
    handed, other = _mean(first, blocks, "handed"), _mean(first, blocks, "other")
    busy = other / _mean(first, blocks, "elapsed")
    if (design is Design.FREE and handed < _LEAST_HANDED) or busy < _LEAST_BUSY:
        raise UserError(
            f"workers had {handed:.0%} of the pages and ran for {busy:.0%} of the time: the costs "
            "of zapping and freeing cannot be separated",
            where=where,
            hint="measure more memory, or a lower threshold (batch_pages, range_pages)",
        )
    if design is Design.FREE and handed > 1.1:
        raise UserError(
            f"workers had {handed:.0%} of the pages: other tasks handed over pages as well",
            where=where,
            hint="measure in a guest in which nothing else runs",
        )


def _common(inputs: Inputs, kernel: str, *cells: CellCosts) -> list[int]:
    blocks = sorted(set.intersection(*(set(one.blocks) for one in cells)))
    if len(blocks) < MINIMUM_BLOCKS:
        raise UserError(
            f"{kernel}: {len(blocks)} blocks with all the cells that are needed "
            f"({', '.join(f'{c.kernel} {c.workers or str()}'.strip() for c in cells)}), expected "
            f"at least {MINIMUM_BLOCKS}",
            where=f"run {inputs.run}, experiment {inputs.experiment}",
            hint="measure more blocks: `statistics: {blocks: {min: 8}}`, or `labctl run --resume`",
        )
    return blocks


def _mean(one: CellCosts, blocks: list[int] | Mapping[int, Cost], name: str) -> float:
    values: list[float] = [getattr(one.blocks[block], name) for block in blocks]
    return sum(values) / len(values)


def _worker_seconds(first: CellCosts, blocks: list[int], inputs: Inputs) -> float:
    return _mean(first, blocks, "other") * 1e-9 * inputs.size_bytes / _PAGE_BYTES


def _cpu(cost: Cost) -> float:
    return cost.own + cost.other


def _drawn(rows: Sequence[tuple[float, ...]], confidence: float) -> np.ndarray:
    """Return the mean of the rows, then of each draw of as many rows with replacement.

    The draws of equally many blocks are the same ones, so that kernels stay paired.
    """
    import numpy as np
    from scipy.special import ndtri, stdtrit

    table, count = np.array(rows), len(rows)
    chosen = np.random.default_rng(SEED).integers(count, size=(DRAWS, count))
    tail = (1 - confidence) / 2
    factor = stdtrit(count - 1, tail) / ndtri(tail) * np.sqrt(count / (count - 1))
    mean = table.mean(axis=0)
    return np.vstack([mean, mean + factor * (table[chosen].mean(axis=1) - mean)])


def _locks(inputs: Inputs, base: str, threads: list[int], prices: list[np.ndarray]) -> list[Locks]:
    """Return what can be assumed of the locks: one answer if they were measured, else limits."""
    import numpy as np

    held = inputs.locks.get(base)
    if held and min(map(len, held.values())) > 1:
        shares = tuple(
            _drawn([(value,) for value in of_blocks], inputs.confidence)[:, 0].clip(0.0, 1.0)
            for of_blocks in held.values()
        )
        return [Locks(Basis.MEASURED, shares)]
    if len(threads) > 1:
        return [Locks(Basis.LEVELS, (_from_levels(threads, prices, inputs.nodes),))]
    most = share_of(prices[0], threads[0], inputs.nodes)
    return [
        Locks(Basis.NO_WAITS, (np.zeros_like(most),)),
        Locks(Basis.ALL_WAITS, (most,)),
    ]


def _from_levels(threads: list[int], prices: list[np.ndarray], nodes: int) -> np.ndarray:
    """Return the share under a lock whose waits best fit how the price grows with threads.

    A constant factor is the price of running in parallel at all, such as colder caches.
    """
    import numpy as np

    grid = np.linspace(0.0, 1.0, 201)
    laws = np.log([slowdown([grid], count, nodes) for count in threads])
    seen = np.log(np.array(prices))
    laws, seen = laws - laws.mean(axis=0), seen - seen.mean(axis=0)
    errors = ((seen[:, :, None] - laws[:, None, :]) ** 2).sum(axis=0)
    return np.asarray(grid[errors.argmin(axis=1)])


def _measured(
    inputs: Inputs, kernel: str, used: int, stock: CellCosts, blocks: list[int]
) -> dict[int, np.ndarray]:
    """Return the time of the other numbers of workers over the baseline's, for checks."""
    import numpy as np

    found = {}
    for one in inputs.cells:
        if one.kernel == kernel and one.workers > used and set(blocks) <= one.blocks.keys():
            rows = [(math.log(one.blocks[b].elapsed / stock.blocks[b].elapsed),) for b in blocks]
            found[one.workers] = np.exp(_drawn(rows, inputs.confidence)[:, 0])
    return found
