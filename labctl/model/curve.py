"""The time of a kernel by its number of workers. Pure.

A thread zaps and workers free (parallel-free), or all of them do both (parallel-unmap). Times are
per page, relative to the baseline's. With n workers that run beside the thread, R(k) the work on
a page while k threads run, and `own` and `each` the shares of the time in which the thread and
each worker are busy:

    parallel-unmap   T = R(n + 1) / (own + n each)
    parallel-free    the same, but at least the time to zap all pages, Z
    hand-over-all    T = max(Z + F / M, Z / M + ceil(M / n) F / M)

In the last, the thread frees nothing: F is the work to free a page while n workers do, M the
number of lists. It is the time of a line of two stations with n servers at the second one, and
tends to max(Z, F / n).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labctl.model.estimate import Estimate, Locks
from labctl.model.queueing import slowdown
from labctl.model.types import Design

if TYPE_CHECKING:
    import numpy as np

_LISTS_PER_THREAD = 4


@dataclass(frozen=True, slots=True)
class Place:
    """What the time depends on beside the kernel; `lists` are all lists of pages or pieces."""

    cores: int
    nodes: int
    lists: float

    def busy(self, workers: int) -> int:
        """Return how many workers run at the same time as the thread."""
        return min(workers, self.cores - 1)

    def is_coarse(self, workers: int) -> bool:
        """Return whether there are too few lists to keep all threads busy until the end."""
        return 0 < self.lists < _LISTS_PER_THREAD * (self.busy(workers) + 1)


def time(
    of: Estimate, locks: Locks, design: Design, workers: int, place: Place
) -> tuple[np.ndarray, str]:
    """Return the time of each draw, and what limits it: zap, work or workers."""
    import numpy as np

    busy = place.busy(workers)
    # The price without what the waits for locks had of it in the measurement.
    alone = of.serial * of.price / slowdown(locks.shares, of.workers + 1, of.nodes)
    if design is Design.HAND_OVER:
        freeing = np.maximum(alone - of.zap, 1e-6)
        shares = [np.minimum(share * alone / freeing, 1.0) for share in locks.shares]
        each = freeing * slowdown(shares, busy, place.nodes)
        count = max(place.lists, busy, 1.0)
        freed = of.zap / count + np.ceil(count / busy) / count * each
        found = np.maximum(of.zap + each / count, freed)
        return found, "zap" if freed[0] < found[0] else "workers"
    work = alone * slowdown(locks.shares, busy + 1, place.nodes)
    shared = work / (of.own_share + busy * of.worker_share)
    if design is Design.FREE:
        return np.maximum(of.zap, shared), "zap" if of.zap[0] > shared[0] else "work"
    return shared, "work"
