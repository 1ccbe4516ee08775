"""The progress of a run: where it is, and how long its parts take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is; `remaining_seconds` assumes that all blocks will be needed."""

    experiment: str
    block: int
    blocks_max: int
    visit: int
    visits: int
    cell: str
    status: str
    remaining_seconds: float | None
    reason: str = ""  # of a failed repetition


@dataclass(slots=True)
class Timing:
    """The wall time of a run by part, in seconds."""

    boot_seconds: float = 0.0
    workload_seconds: float = 0.0
    total_seconds: float = 0.0
    boots: int = 0
    visits: int = 0

    def remaining_seconds(
        self, *, visits: int, blocks: int, guests: int, visits_per_block: int
    ) -> float | None:
        """Return the time of `visits` in this block and of `blocks` more, None if unknown.

        A block boots `guests` and has `visits_per_block`.
        """
        if not self.visits:
            return None
        visit = self.workload_seconds / self.visits
        boots = self.boot_seconds / max(1, self.boots) * guests
        return visit * visits + blocks * (boots + visit * visits_per_block)


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
