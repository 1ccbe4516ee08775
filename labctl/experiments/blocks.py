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
    comparable. Samples are those of all blocks so far; from one call to the next, only new ones
    are looked at, since a run on many hosts may have 100 000 blocks.
    """

    plan: Plan
    host: str
    ended: Callable[[list[Sample]], frozenset[str]] = lambda _: frozenset()
    repetitions: Callable[[list[Sample]], int] | None = None
    extra: int = 0  # blocks measured again
    _ended: frozenset[str] = field(default=frozenset())  # cells that need no further block
    _known: int = 0  # number of samples that the following are of
    _of_block: dict[int, list[Sample]] = field(default_factory=dict)
    _disturbed: set[int] = field(default_factory=set)
    _begun: set[int] = field(default_factory=set)  # by another host that is no worker

    def is_done(self, number: int, samples: list[Sample], budget: Budget, now: float) -> bool:
        """Return whether the experiment is complete before block `number`.

        Only earlier blocks count, so that a run resumed inside a block decides the same.
        """
        self._note(samples)
        blocks = self.plan.statistics.blocks
        again = extra_blocks(sum(block < number for block in self._disturbed), blocks.min)
        self.extra = again + self._torn(number)
        if number >= blocks.max + self.extra:
            return True
        if number < blocks.min + self.extra:
            return False
        if budget.is_spent(now):
            return True
        before = [sample for sample in samples if sample.block < number]
        self._ended |= self.ended(usable(before, blocks.min)[0])
        compared = [cell.id for cell in self.plan.cells if cell.kernel != self.plan.baseline]
        return bool(compared) and self._ended.issuperset(compared)

    def block(self, number: int, samples: Iterable[Sample]) -> Block:
        """Return block `number`, by the samples of earlier blocks."""
        chosen = self.plan.first_repetitions
        if self.repetitions is not None:
            chosen = self.repetitions([sample for sample in samples if sample.block < number])
        return Block(number=number, ended=self._ended, repetitions=chosen)

    def is_elsewhere(self, number: int, samples: list[Sample]) -> bool:
        """Return whether another host or a worker has measured in a block."""
        self._note(samples)
        return any(map(self._is_of_another, self._of_block.get(number, ())))

    def _note(self, samples: list[Sample]) -> None:
        if len(samples) < self._known:  # not those of the last call
            self._known = 0
            for each in (self._of_block, self._disturbed, self._begun):
                each.clear()
        new = samples[self._known :]
        self._known = len(samples)
        for sample in new:
            self._of_block.setdefault(sample.block, []).append(sample)
            if self._is_begun_by_another(sample):
                self._begun.add(sample.block)
        for block in {sample.block for sample in new}:
            if disturbed_blocks(self._of_block[block]):
                self._disturbed.add(block)
            else:
                self._disturbed.discard(block)

    def _is_of_another(self, sample: Sample) -> bool:
        return sample.host != self.host or bool(sample.host_name)

    def _is_begun_by_another(self, sample: Sample) -> bool:
        # The blocks of workers are stored as a whole.
        return self._is_of_another(sample) and not sample.host_name

    def _torn(self, number: int) -> int:
        """Return how many blocks before `number` another host began and did not complete."""
        rule, nobody = Retries(self.plan.cells), Guests({}, frozenset(), frozenset())
        whole = self.plan.first_repetitions
        torn = 0
        for block in self._begun:
            if block < number:
                own = filter(self._is_begun_by_another, self._of_block[block])
                every = self.plan.block(block, self._ended, whole)
                torn += bool(rule.missing(every, own, block, nobody))
        return torn
