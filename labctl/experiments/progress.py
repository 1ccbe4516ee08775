"""The progress of a run: where it is, and how long its parts take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """The progress of a block: `done` of its `repetitions`, and what happens to a cell."""

    block: int
    done: int
    repetitions: int
    cell: str
    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is; `remaining_seconds` assumes that all blocks will be needed."""

    experiment: str
    block: int
    blocks_max: int
    repetition: int  # of the block, with warm-ups
    repetitions: int
    cell: str
    status: str
    remaining_seconds: float | None
    reason: str = ""  # of a failed repetition
    host: str = ""  # the worker's name, with a scheduler


@dataclass(slots=True)
class Timing:
    """The wall time of a run by part, in seconds."""

    boot_seconds: float = 0.0
    workload_seconds: float = 0.0
    total_seconds: float = 0.0
    boots: int = 0
    repetitions: int = 0

    def remaining_seconds(
        self, *, repetitions: int, blocks: int, guests: int, per_block: int
    ) -> float | None:
        """Return the time of `repetitions` in this block and of `blocks` more, None if unknown.

        A block boots `guests` and has `per_block` repetitions.
        """
        if not self.repetitions:
            return None
        each = self.workload_seconds / self.repetitions
        boots = self.boot_seconds / max(1, self.boots) * guests
        return each * repetitions + blocks * (boots + each * per_block)


@dataclass(slots=True)
class Budget:
    """A limit for the time of an experiment; without `seconds` there is none."""

    seconds: float | None
    began: float
    blocks: int = 0

    def is_spent(self, now: float) -> bool:
        """Return whether a block that takes as long as those before would end too late."""
        if self.seconds is None:
            return False
        took = now - self.began
        return took + took / max(1, self.blocks) > self.seconds

    def limit(self, remaining_seconds: float, now: float) -> float:
        """Return an estimate of the remaining time, at most what is left of the budget."""
        if self.seconds is None:
            return remaining_seconds
        return min(remaining_seconds, max(0.0, self.seconds - (now - self.began)))
