"""The times of call stacks in two kernels, as a tree of frames. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from labctl.observers.stacks import frames_of, path_of
from labctl.stats.cells import Cell, bases_for
from labctl.stats.counters import RATE, Tests, tests, values_of
from labctl.stats.explanation_types import FrameTime
from labctl.stats.paired import adjust

_LEAST_SHARE = 0.002  # of the whole time: narrower than a pixel
_MOST_FRAMES = 600


def frames(
    cells: Sequence[Cell], baselines: Sequence[Cell], controls: Sequence[Cell], confidence: float
) -> list[tuple[FrameTime, ...]]:
    """Return the frames of each cell and its baseline with the most time, ordered by path.

    A caller is always among them. Empty if no stacks were observed.
    """
    known = {id(base): values_of(base, frames_of) for base in (*baselines, *controls)}
    found = []
    for cell in cells:
        bases = [known[id(base)] for base in bases_for(cell, baselines, controls)]
        found.append(_longest(tests(values_of(cell, frames_of), bases, confidence)))
    return found


def _longest(found: Tests) -> tuple[FrameTime, ...]:
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
