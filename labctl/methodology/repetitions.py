"""Simulated runs with `repetitions: auto`, chosen for each block as in a run. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labctl.lab.metrics import Scale
from labctl.stats import repetitions, robust
from labctl.stats.repetitions import FIRST, Goal
from labctl.stats.scale import plain_spread
from labctl.stats.stopping import CONTROL_FACTOR

if TYPE_CHECKING:
    import numpy as np

# A boot with its warm-up takes as long as two repetitions: 4 s for the boot of a guest under
# TCG, 4 s for populating and freeing 3 GiB.
FIXED = 2.0


def thinned(logs: np.ndarray, goal: Goal, scale: Scale = "ratio") -> tuple[np.ndarray, np.ndarray]:
    """Return the logs with NaN where a run has no repetition, and the repetitions of each block.

    `logs` is runs x cells x blocks x 15, with the baseline and the A/A control as the first
    cells, and has values with scale difference; the second result is runs x blocks.
    """
    import numpy as np

    runs, cells, blocks, most = logs.shape
    kept = np.array(logs)
    numbers = np.full((runs, blocks), FIRST)
    for block in range(blocks):
        if repetitions.is_renewed(block):
            done = numbers[:, :block]
            known = kept[:, :, :block, : done.max()]
            numbers[:, block] = _chosen(known, done, cells, goal, scale)
        elif block:
            numbers[:, block] = numbers[:, block - 1]
        missing = np.arange(most) >= numbers[:, block, None]
        kept[:, :, block][np.broadcast_to(missing[:, None], (runs, cells, most))] = np.nan
    return kept[..., : numbers.max()], numbers


def _chosen(
    logs: np.ndarray, numbers: np.ndarray, cells: int, goal: Goal, scale: Scale
) -> np.ndarray:
    import numpy as np

    spread = robust.spread if scale == "ratio" else plain_spread
    within = (spread(logs) ** 2).mean(axis=1)
    d = log_ratios(logs, scale)
    variance = d.var(axis=1, ddof=1)
    variance[:, 0] *= CONTROL_FACTOR**2
    variance, inverse = variance.mean(axis=1), (1 / numbers).mean(axis=1)
    freedom = (d.shape[1] - 1) * d.shape[2]
    found = repetitions.best(
        within,
        repetitions.between(variance, within, inverse=inverse, freedom=freedom),
        fixed_seconds=within * 0 + cells * FIXED,
        round_seconds=within * 0 + cells,
        goal=goal,
    )
    chosen: np.ndarray = np.where(within > 0, found, FIRST)
    return chosen


def log_ratios(logs: np.ndarray, scale: Scale = "ratio") -> np.ndarray:
    """Return the log ratios or differences of runs x blocks x cells, the A/A control as first cell.

    `logs` is runs x cells x blocks x repetitions. The others are compared with the mean of the
    baseline and the A/A control.
    """
    import numpy as np

    if scale == "ratio":
        boots = robust.means(logs, robust.spread(logs)[..., None])
    else:
        boots = np.nanmean(logs, axis=-1)
    base, control, others = boots[:, 0], boots[:, 1], boots[:, 2:]
    against = (base + control)[:, None] / 2 - others
    return np.moveaxis(np.concatenate([(base - control)[:, None], against], axis=1), 1, 2)
