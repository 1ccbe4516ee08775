"""Threads that wait for the locks of the nodes: a closed queueing network. Pure.

Each of N threads alternates between work of its own and short holds of one of the locks. This is
the machine repairman model with a repairman for each lock, and its mean values are exact for
exponential times (M. Reiser and S. S. Lavenberg, "Mean-Value Analysis of Closed Multichain
Queuing Networks", Journal of the ACM 27 (2), 1980, pages 313 to 322).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def slowdown(shares: Sequence[np.ndarray], threads: int, nodes: int) -> np.ndarray:
    """Return the time that a unit of work takes with `threads`, as a multiple of one thread's.

    `shares` has, for each kind of lock, the share of the work under it, an array each; there
    is one such lock in each node, and all are used alike.
    """
    import numpy as np

    work = 1.0 - sum(shares, np.zeros_like(shares[0]))
    queues = [np.zeros_like(share) for share in shares]
    total = np.ones_like(shares[0])
    for count in range(1, threads + 1):
        # A thread that arrives meets the queue of a network with one thread less.
        stays = [share * (1.0 + queue) for share, queue in zip(shares, queues, strict=True)]
        total = np.asarray(work + sum(stays, np.zeros_like(work)))
        queues = [count / total * stay / nodes for stay in stays]
    return total


def share_of(slowdowns: np.ndarray, threads: int, nodes: int) -> np.ndarray:
    """Return the share of the work under one kind of lock that explains each slowdown.

    Below 1 that is 0, above what locks can explain 1.
    """
    import numpy as np

    grid = np.linspace(0.0, 1.0, 501)
    return np.asarray(np.interp(slowdowns, slowdown([grid], threads, nodes), grid))
