"""Fresh boots for guests that fail in a block, decided by the stored samples alone. Pure.

A run that is resumed has the same samples as an undisturbed one, so it decides the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from labctl.experiments.plan import BootGroup, Cell, Repetition
from labctl.runs.sample import Sample
from labctl.status import CRASHES

# Of a guest in a block. A kernel that always fails then costs three boots.
IN_BLOCK = 2
# Failures of a guest in an experiment after which it is not booted again: a kernel that fails
# in every block is shown to do so, and would only cost time.
IN_ALL = 6


@dataclass(frozen=True, slots=True)
class Guests:
    """The failures of an experiment's guests in one block, by its samples so far."""

    failures: Mapping[BootGroup, int]
    retried: frozenset[BootGroup]  # failed, and to be booted again
    given_up: frozenset[BootGroup]  # failed too often

    def attempt(self, group: BootGroup) -> int:
        """Return the attempt that a boot of the guest is."""
        return self.failures.get(group, 0)


@dataclass(frozen=True, slots=True)
class Retries:
    """The rule: how often a guest is booted again; 0 in a block is never."""

    cells: Sequence[Cell]
    in_block: int = IN_BLOCK
    in_all: int = IN_ALL
    _groups: dict[str, BootGroup] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._groups.update({cell.id: cell.group for cell in self.cells})

    def guests(self, samples: Iterable[Sample], block: int) -> Guests:
        """Return the failures of the guests in a block.

        Guests of a block that others followed stay as they are: a repetition measured days
        later would not be comparable with those of its block.
        """
        failures: dict[BootGroup, int] = {}
        in_all: dict[BootGroup, int] = {}
        last = block
        for sample in samples:
            last = max(last, sample.block)
            group = self._groups.get(sample.cell)
            if sample.status in CRASHES and group is not None and sample.block <= block:
                in_all[group] = in_all.get(group, 0) + 1
                if sample.block == block:
                    failures[group] = failures.get(group, 0) + 1
        if last > block:
            return Guests(failures, frozenset(), frozenset())
        retried = {
            group
            for group, count in failures.items()
            if count <= self.in_block and in_all[group] <= self.in_all
        }
        return Guests(failures, frozenset(retried), frozenset(failures.keys() - retried))

    def missing(
        self, every: Sequence[Repetition], samples: Iterable[Sample], block: int, guests: Guests
    ) -> list[Repetition]:
        """Return the repetitions of a block that are not measured, preceded by their warm-ups.

        Guests of an interrupted block are booted again and need new warm-ups. These get
        new repetition numbers, since the samples of the old warm-ups are kept.
        """
        own = [sample for sample in samples if sample.block == block]
        settled = {
            (sample.cell, sample.repetition)
            for sample in own
            if not sample.warmup
            and not (sample.status in CRASHES and self._groups.get(sample.cell) in guests.retried)
        }
        measured = [
            one for one in every if not one.warmup and (one.cell.id, one.number) not in settled
        ]
        booted = {one.cell.group for one in measured} - guests.given_up
        taken = {(one.cell, one.attempt, one.repetition) for one in own if one.warmup}
        warmups = []
        for one in every:
            if one.warmup and one.cell.group in booted:
                unused, attempt = one.number, guests.attempt(one.cell.group)
                while (key := (one.cell.id, attempt, unused)) in taken:
                    unused += 1
                taken.add(key)
                warmups.append(Repetition(one.cell, unused, warmup=True))
        return [*warmups, *measured]


def again(
    every: Sequence[Repetition], failed: Repetition, rest: Collection[Repetition]
) -> list[Repetition]:
    """Return what is left of a block once the guest of `failed` is booted again.

    The guest is warmed up again, then `failed` is measured again at its place in the order.
    """
    group = failed.cell.group
    warmups = [one for one in every if one.warmup and one.cell.group == group]
    left = [one for one in rest if not (one.warmup and one.cell.group == group)]
    return [*warmups, *([] if failed.warmup else [failed]), *left]
