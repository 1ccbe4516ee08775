"""Which blocks of an experiment are measured, and how, decided by its stored samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from labctl.experiments.plan import Plan
from labctl.experiments.progress import Budget
from labctl.experiments.retries import Guests, Retries
from labctl.runs.sample import Sample
from labctl.stats.health import disturbed_blocks, extra_blocks, usable


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block to measure: its number, the cells that it omits, and the repetitions of each cell."""

    number: int
    ended: frozenset[str] = frozenset()
    repetitions: int


@dataclass(slots=True, kw_only=True)
class Blocks:
    """The rule of one experiment.

    `host` measures all blocks; it is empty with a scheduler, whose workers measure whole
    blocks. A block that another host began is never completed: its repetitions would not be
    comparable.
    """

    plan: Plan
    host: str
    ended: Callable[[list[Sample]], frozenset[str]] = lambda _: frozenset()
    repetitions: Callable[[list[Sample]], int] | None = None
    extra: int = 0  # blocks measured again
    _ended: frozenset[str] = field(default=frozenset())  # cells that need no further block

    def is_done(self, number: int, samples: list[Sample], budget: Budget, now: float) -> bool:
        """Return whether the experiment is complete before block `number`.

        Only earlier blocks count, so that a run resumed inside a block decides the same.
        """
        blocks = self.plan.statistics.blocks
        before = [sample for sample in samples if sample.block < number]
        again = extra_blocks(len(disturbed_blocks(before)), blocks.min)
        self.extra = again + self._torn(before)
        if number >= blocks.max + self.extra:
            return True
        if number < blocks.min + self.extra:
            return False
        if budget.is_spent(now):
            return True
        self._ended |= self.ended(usable(before, blocks.min)[0])
        compared = [cell.id for cell in self.plan.cells if cell.kernel != self.plan.baseline]
        return bool(compared) and self._ended.issuperset(compared)

    def block(self, number: int, samples: Iterable[Sample]) -> Block:
        """Return block `number`, by the samples of earlier blocks."""
        chosen = self.plan.first_repetitions
        if self.repetitions is not None:
            chosen = self.repetitions([sample for sample in samples if sample.block < number])
        return Block(number=number, ended=self._ended, repetitions=chosen)

    def is_elsewhere(self, number: int, samples: Iterable[Sample]) -> bool:
        """Return whether another host or a worker has measured in a block."""
        return any(sample.block == number and self._is_of_another(sample) for sample in samples)

    def _is_of_another(self, sample: Sample) -> bool:
        return sample.host != self.host or bool(sample.host_name)

    def _torn(self, samples: list[Sample]) -> int:
        """Return the number of blocks that another host began and this run cannot complete."""
        # The blocks of workers are stored as a whole.
        begun: dict[int, list[Sample]] = {}
        for sample in samples:
            if self._is_of_another(sample) and not sample.host_name:
                begun.setdefault(sample.block, []).append(sample)
        rule, nobody = Retries(self.plan.cells), Guests({}, frozenset(), frozenset())
        whole = self.plan.first_repetitions
        return sum(
            bool(rule.missing(self.plan.block(number, self._ended, whole), own, number, nobody))
            for number, own in begun.items()
        )
