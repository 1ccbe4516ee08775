"""The stopping rule: which cells need no further block. Pure.

A cell ends after a block when its interval is narrow enough; later blocks measure only
the other cells. Among many cells some have a small standard deviation by chance and would
end first, with intervals that are too narrow. Therefore the interval must be narrow both
by the cell's own standard deviation and by the pooled one. The rule ignores means, since
stopping at a significant difference increases false positives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from labctl.lab.metrics import Scale
from labctl.runs.sample import Sample
from labctl.stats.cells import bases_for, cells_of, primary
from labctl.stats.compare import differences, roles
from labctl.stats.streaks import independent_blocks
from labctl.stats.verdict import strict

if TYPE_CHECKING:
    import numpy as np

# The baseline of a cell is the mean of two boots, that of the A/A control is one boot. With
# boots of the same variance, a cell's log ratio has 1.5 times it, the A/A control's twice.
CONTROL_FACTOR = math.sqrt(1.5 / 2)

# With fewer blocks, stopping costs coverage, whatever `blocks.min` says.
FEWEST_BLOCKS = 8


def is_narrow(
    sd: np.ndarray, blocks: np.ndarray, *, confidence: float, half_width: float
) -> np.ndarray:
    """Return for each cell whether it has 8 blocks and at most this half-width.

    `sd` has the standard deviations of the cells' log ratios or differences, `blocks` their
    numbers of blocks; the last axis is over the cells of one experiment, with the A/A control,
    whose deviation is multiplied by `CONTROL_FACTOR`.
    """
    import numpy as np
    from scipy.special import stdtrit

    freedom = np.maximum(blocks - 1, 0)
    shared = (freedom * sd**2).sum(axis=-1, keepdims=True)
    pooled = np.sqrt(shared / np.maximum(freedom.sum(axis=-1, keepdims=True), 1))
    reach = stdtrit(np.maximum(freedom, 1), (1 + confidence) / 2) / np.sqrt(np.maximum(blocks, 1))
    narrow: np.ndarray = (blocks >= FEWEST_BLOCKS) & (reach * np.maximum(sd, pooled) <= half_width)
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
        differences(cell, bases_for(cell, baselines, controls), primary, "lower")
        for cell in (*others, *controls)
    ]
    if not columns:
        return frozenset()
    blocks = np.array([len(d) for d in columns])
    sd = np.array([_sd(d) if len(d) > 1 else 0.0 for d in columns])
    sd[len(others) :] *= CONTROL_FACTOR
    narrow = is_narrow(sd, blocks, confidence=strict(confidence), half_width=half_width)
    return frozenset(
        cell.id
        for cell, is_done, count in zip(others, narrow, blocks, strict=False)
        if is_done or not count
    )


def _sd(d: Sequence[float]) -> float:
    """Return the standard deviation, larger if blocks in a row are alike, as in `Paired`."""
    import numpy as np

    return float(np.std(d, ddof=1)) * math.sqrt(len(d) / independent_blocks(d))
