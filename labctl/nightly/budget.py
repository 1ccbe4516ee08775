"""The schedule of a nightly run: which experiment gets the next block. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """How far an experiment is: its blocks, what they took, how wide its widest interval is.

    `block_seconds` is how long its last block took, None before the first;
    `half_width` is on the log scale; `target` the one that is narrow enough, if any.
    """

    name: str
    blocks: int
    blocks_min: int
    blocks_max: int
    block_seconds: float | None
    half_width: float
    target: float | None

    @property
    def is_done(self) -> bool:
        """Whether the experiment needs no more blocks."""
        is_narrow = self.target is not None and self.half_width <= self.target
        return self.blocks >= self.blocks_max or (self.blocks >= self.blocks_min and is_narrow)


def next_experiment(spent: Iterable[Spent], remaining_seconds: float) -> str | None:
    """Return the experiment that gets the next block, None if the nightly run is over.

    First all experiments reach their minimum in turns, so that a run that ends early has
    blocks of each; then the experiment with the widest interval is next. A block that
    would not finish in time is not started.
    """
    wanted = [
        each
        for each in spent
        if not each.is_done and (each.block_seconds or 0.0) <= remaining_seconds
    ]
    if not wanted or remaining_seconds <= 0:
        return None
    missing = [each for each in wanted if each.blocks < each.blocks_min]
    if missing:
        return min(missing, key=lambda each: each.blocks).name
    widest = max(wanted, key=lambda each: each.half_width)
    return widest.name if not math.isnan(widest.half_width) else None
