"""The stopping rule: which cells need no further block. Pure.

A cell ends after a block when its interval is narrow enough; later blocks measure only
the other cells. Among many cells some have a small standard deviation by chance and would
end first, with intervals that are too narrow. Therefore the interval must be narrow both
by the cell's own standard deviation and by the pooled one. The rule ignores means, since
stopping at a significant difference increases false positives. With several hosts, the spread is
that within hosts: of few hosts, some are alike by chance, and more blocks of them say no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from labctl.lab.metrics import Scale
from labctl.runs.sample import Sample
from labctl.stats.cells import bases_for, cells_of, primary
from labctl.stats.compare import differences_on_hosts, roles
from labctl.stats.over_hosts import by_host, variance_within
from labctl.stats.streaks import independent_blocks
from labctl.stats.verdict import strict

if TYPE_CHECKING:
    import numpy as np

# The baseline of a cell is the mean of two boots, that of the A/A control is one boot. With
# boots of the same variance, a cell's log ratio has 1.5 times it, the A/A control's twice.
CONTROL_FACTOR = math.sqrt(1.5 / 2)

# Of one host. With fewer blocks, stopping costs coverage, whatever `blocks.min` says.
FEWEST_BLOCKS = 8


def is_narrow(
    sd: np.ndarray,
    blocks: np.ndarray,
    *,
    confidence: float,
    half_width: float,
    hosts: np.ndarray | int = 1,
) -> np.ndarray:
    """Return for each cell whether it has enough blocks and at most this half-width.

    `sd` has the standard deviations of the cells' log ratios or differences, `blocks` their
    numbers of blocks; the last axis is over the cells of one experiment, with the A/A control,
    whose deviation is multiplied by `CONTROL_FACTOR`. With several `hosts`, the deviations are
    those within hosts. Enough are 8 blocks, and another one for each further host.
    """
    import numpy as np
    from scipy.special import stdtrit

    freedom = np.maximum(blocks - hosts, 0)
    shared = (freedom * sd**2).sum(axis=-1, keepdims=True)
    pooled = np.sqrt(shared / np.maximum(freedom.sum(axis=-1, keepdims=True), 1))
    reach = stdtrit(np.maximum(freedom, 1), (1 + confidence) / 2) / np.sqrt(np.maximum(blocks, 1))
    narrow: np.ndarray = (blocks - hosts >= FEWEST_BLOCKS - 1) & (
        reach * np.maximum(sd, pooled) <= half_width
    )
    return narrow


def ended(
    samples: Iterable[Sample],
    *,
    baseline: str,
    confidence: float,
    half_width: float,
    scale: Scale = "ratio",
) -> frozenset[str]:
    """Return the ids of the compared cells that need no further block.

    Call it at the end of a block; `half_width` is on the log scale, or in the unit of the
    values with `scale` difference. A cell without any valid value ends too.
    """
    import numpy as np

    baselines, controls, others = roles(cells_of(samples, scale), baseline)
    columns = [
        differences_on_hosts(cell, bases_for(cell, baselines, controls), primary, "lower")
        for cell in (*others, *controls)
    ]
    if not columns:
        return frozenset()
    blocks = np.array([len(d) for d, _ in columns])
    count = np.array([max(len(set(hosts)), 1) for _, hosts in columns])
    sd = np.array([_sd(d, hosts) for d, hosts in columns])
    sd[len(others) :] *= CONTROL_FACTOR
    narrow = is_narrow(
        sd, blocks, confidence=strict(confidence), half_width=half_width, hosts=count
    )
    return frozenset(
        cell.id
        for cell, is_done, count in zip(others, narrow, blocks, strict=False)
        if is_done or not count
    )


def _sd(d: Sequence[float], hosts: Sequence[str]) -> float:
    """Return the standard deviation within hosts, larger if blocks in a row are alike.

    0 with one block a host.
    """
    groups = by_host(d, hosts)
    if len(d) == len(groups):
        return 0.0
    rest = [value - fmean(own) for own in groups.values() for value in own]
    wider = math.sqrt(len(d) / independent_blocks(rest))
    return math.sqrt(variance_within(groups)) * wider
