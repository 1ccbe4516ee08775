"""The times of call stacks in two kernels, as a tree of frames. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from labctl.observers.stacks import frames_of, path_of
from labctl.stats.cells import Cell, bases_for
from labctl.stats.counters import RATE, tests, values_of
from labctl.stats.explanation_types import FrameTime
from labctl.stats.paired import adjust

_LEAST_SHARE = 0.002  # of the whole time: narrower than a pixel
_MOST_FRAMES = 600


def frames(
    cell: Cell, baselines: Sequence[Cell], controls: Sequence[Cell], confidence: float
) -> tuple[FrameTime, ...]:
    """Return the frames of a cell and its baseline with the most time, ordered by path.

    A caller is always among them. Empty if no stacks were observed.
    """
    own = values_of(cell, frames_of)
    bases = [values_of(base, frames_of) for base in bases_for(cell, baselines, controls)]
    found = tests(own, bases, confidence)
    corrected = adjust(found.p_values(), method="fdr_bh")
    every = [
        FrameTime(
            frame=path_of(name),
            baseline=float(found.base[index]),
            cell=float(found.cell[index]),
            difference=float(found.difference[index]),
            changed=p is not None and p <= RATE,
        )
        for index, (name, p) in enumerate(zip(found.names, corrected, strict=True))
    ]
    every.sort(key=lambda each: (-max(each.baseline, each.cell), each.frame))
    largest = max((each.baseline + each.cell for each in every), default=0.0)
    shown = [each for each in every if each.baseline + each.cell > _LEAST_SHARE * largest]
    return tuple(sorted(shown[:_MOST_FRAMES], key=lambda each: each.frame))
