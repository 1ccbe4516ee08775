"""The runner: boots the guests of each block, measures its cells, stores each sample at once.

The runner gets its guests from a callable and knows nothing of QEMU, so that it also
runs on synthetic guests.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from labctl.errors import BaselineFailed, GuestError
from labctl.experiments.block_guests import BlockGuests, Boot
from labctl.experiments.blocks import Block, Blocks
from labctl.experiments.description import Facts, description
from labctl.experiments.guest_like import GuestLike
from labctl.experiments.observing import observers_in
from labctl.experiments.plan import BootGroup, Plan, Repetition
from labctl.experiments.progress import Budget, Progress, Step, Timing
from labctl.experiments.repetition import exercise_status, repeat, values_of
from labctl.experiments.retries import Retries, again
from labctl.experiments.steps import Steps
from labctl.experiments.tunables import counter_files
from labctl.host import load as host_load
from labctl.lab.models import Lab
from labctl.lab.topology import Topology
from labctl.observers.observer import Observer
from labctl.runs.sample import Sample
from labctl.stats.failures import first_words, whose
from labctl.stats.health import HealthRule, disturbance, disturbed_blocks
from labctl.status import CRASHES, HOST_FAULTS, SampleStatus
from labctl.units import counted
from labctl.workloads.supply import NOTHING, Supply

_MEASURED = {SampleStatus.OK, SampleStatus.NOT_EXERCISED}


class Samples(Protocol):
    """Where samples are stored: `labctl.runs.store.Store`, or the memory of a worker."""

    def append(self, sample: Sample) -> None: ...

    def samples(self) -> list[Sample]: ...


@dataclass(slots=True)
class Runner:
    """Measures the plan of one experiment; call `run`, or `measure` for single blocks."""

    lab: Lab
    plan: Plan
    store: Samples
    boot: Boot
    facts: Facts
    progress: Callable[[Progress], None] = lambda _: None
    ended: Callable[[list[Sample]], frozenset[str]] = lambda _: frozenset()
    # The number of repetitions after some blocks; without it, it does not change.
    repetitions: Callable[[list[Sample]], int] | None = None
    # Whether all guests of a block run at the same time; a target runs one kernel at a time.
    together: bool = True
    # The minimum of blocks is measured even if it takes longer.
    budget_seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    load: Callable[[], Mapping[str, float]] = host_load.load
    suspended: Callable[[], float] = host_load.suspended_seconds
    supply: Supply = NOTHING
    log_of: Callable[[GuestLike], str] = lambda _: ""  # console log, relative to the run's folder
    health: HealthRule = field(default_factory=HealthRule)
    # Whether a guest that fails is booted again; a target that fails may not answer any more.
    retries: bool = True
    timing: Timing = field(default_factory=Timing)
    # Whether the baseline is known to work; else its first failure ends the run.
    baseline_is_good: bool = False
    blocks: Blocks = field(init=False)
    budget: Budget = field(default_factory=lambda: Budget(None, 0.0))
    _attempts: dict[BootGroup, int] = field(default_factory=dict)  # of the block
    _repetitions: int = 0  # of the block that is measured
    _boot_seconds: float = 0.0  # of its guests

    def __post_init__(self) -> None:
        self.blocks = Blocks(
            plan=self.plan, host=self.facts.host, ended=self.ended, repetitions=self.repetitions
        )

    def run(self) -> None:
        """Measure the missing samples, block by block.

        Blocks disturbed by the host stay in the store, marked as disturbed, and a few of
        them are measured again at the end. A guest's failure becomes a sample, not an
        exception.

        Raises:
            BaselineFailed: the first repetition of the baseline failed, so that nothing
                can be compared.
            LabError: the store failed; finished samples are on disk.
        """
        self.budget = Budget(self.budget_seconds, self.clock())
        try:
            for number in itertools.count():
                samples = self.samples()
                if self.blocks.is_done(number, samples, self.budget, self.clock()):
                    break
                if not self.blocks.is_elsewhere(number, samples):
                    self.measure(self.blocks.block(number, samples))
                self.budget.blocks += 1
        finally:
            self.timing.total_seconds += self.clock() - self.budget.began

    def samples(self) -> list[Sample]:
        """Return the stored samples of the experiment."""
        name = self.plan.experiment.name
        return [sample for sample in self.store.samples() if sample.experiment == name]

    def measure(self, block: Block) -> None:
        """Measure the missing samples of a block; raises as `run` does."""
        number = block.number
        self._boot_seconds = 0.0
        self._repetitions = block.repetitions
        every = self.plan.block(number, block.ended, block.repetitions)
        samples = self.samples()
        known = self._rule.guests(samples, number)
        self._attempts = dict(known.failures)
        parts = self._parts(self._rule.missing(every, samples, number, known))
        repetitions = list(itertools.chain(*parts))
        order = 0
        for part in parts:
            with contextlib.ExitStack() as stack:
                self._report(number, order, repetitions, "booting")
                guests = self._guests(stack, number)
                self._boot(guests, dict.fromkeys(one.cell.group for one in part), known.given_up)
                left = deque(part)
                while left:
                    one = left.popleft()
                    self._report(number, order, repetitions, "measuring")
                    is_last = all(other.cell.group != one.cell.group for other in left)
                    sample = self._sample(number, order, one, guests, is_last=is_last)
                    self.store.append(sample)
                    order += 1
                    reason = "" if sample.status == SampleStatus.OK else first_words(sample)
                    self._report(number, order, repetitions, sample.status, reason)
                    is_retried = self._is_retried(sample, one.cell.group)
                    if not is_retried or sample.fault not in HOST_FAULTS:
                        self._check_baseline(sample)
                    if is_retried:
                        rest = len(left)
                        left = deque(again(every, one, left))
                        repetitions[order : order + rest] = left
                        self._report(number, order, repetitions, "booting", reason)
                        self._boot_again(guests, one.cell.group)
        why = disturbed_blocks(self.samples()).get(number)
        if repetitions and why:
            self._report(number, len(repetitions), repetitions, f"block disturbed: {why}")

    @property
    def _rule(self) -> Retries:
        return Retries(self.plan.cells, *(() if self.retries else (0,)))

    def _is_retried(self, sample: Sample, group: BootGroup) -> bool:
        if sample.status not in CRASHES:
            return False
        return group in self._rule.guests(self.samples(), sample.block).retried

    def _boot_again(self, guests: BlockGuests, group: BootGroup) -> None:
        """Replace a guest that failed by a fresh boot, while the others are paused."""
        planned_seconds = self._boot_seconds
        self._attempts[group] = self._attempts.get(group, 0) + 1
        self._boot(guests, [group])
        self._boot_seconds = planned_seconds

    def _check_baseline(self, sample: Sample) -> None:
        """Raise if the baseline failed before its first valid repetition."""
        is_baseline = sample.kernel == self.plan.baseline and not sample.control
        if self.baseline_is_good or not is_baseline or sample.status == SampleStatus.SKIPPED:
            return
        own = {
            one.status for one in self.samples() if one.kernel == sample.kernel and not one.control
        }
        if not own.isdisjoint(_MEASURED):
            self.baseline_is_good = True
            return
        raise BaselineFailed(
            f"experiment {sample.experiment}: first repetition of baseline "
            f"{sample.kernel} failed: {sample.status} ({whose(sample.status)}): "
            f"{first_words(sample)}",
            console=sample.console,
        )

    def _parts(self, every: list[Repetition]) -> list[list[Repetition]]:
        """Return the repetitions grouped by the guests that run at the same time."""
        parts: dict[BootGroup | None, list[Repetition]] = {}
        for one in every:
            parts.setdefault(None if self.together else one.cell.group, []).append(one)
        return list(parts.values())

    def _guests(self, stack: contextlib.ExitStack, number: int) -> BlockGuests:
        steps = Steps(self.lab.workloads[self.plan.experiment.workload], self.supply)
        return BlockGuests(self.boot, steps, number, self.facts.boot_deadline_seconds, stack)

    def _boot(
        self,
        guests: BlockGuests,
        groups: Iterable[BootGroup],
        given_up: Collection[BootGroup] = (),
    ) -> None:
        began = self.clock()
        started = [group for group in groups if group not in given_up]
        guests.start(started)
        self._boot_seconds += self.clock() - began
        self.timing.boot_seconds += self.clock() - began
        self.timing.boots += len(started)

    def _sample(
        self,
        number: int,
        order: int,
        repetition: Repetition,
        guests: BlockGuests,
        *,
        is_last: bool,
    ) -> Sample:
        group = repetition.cell.group
        guest = guests.get(group)
        base = description(self.lab, self.plan, self.facts, number, order, repetition)
        base["attempt"] = self._attempts.get(group, 0)
        if guest is None:
            what = f"not booted again after {counted(base['attempt'], 'failure')} in this block"
            return Sample(**base, boot_id="", status=SampleStatus.SKIPPED, value=None, message=what)
        base |= {"boot_id": guest.boot_id, "console": self.log_of(guest)}
        failed = guests.failures.get(group)
        if failed is not None:
            # One sample records the failure; the repetitions that it prevents are skipped.
            status = SampleStatus.SKIPPED if group in guests.recorded else failed.status
            guests.recorded.add(group)
            return _failure(base, failed, status)
        try:
            return self._measure(repetition, guest, base, is_last=is_last)
        except GuestError as error:
            if error.status in CRASHES:
                guests.give_up(group, error)
                guests.recorded.add(group)
            return _failure(base, error, error.status)

    def _measure(
        self, repetition: Repetition, guest: GuestLike, base: dict[str, Any], *, is_last: bool
    ) -> Sample:
        cell, experiment = repetition.cell, self.plan.experiment
        workload = self.lab.workloads[experiment.workload]
        topology = self._topology()
        icount = topology is not None and topology.icount
        measured = repeat(
            guest,
            Steps(workload, self.supply),
            cell.parameters,
            lab_tunables=self.lab.tunables,
            values=cell.tunables,
            counters=counter_files(self.lab.tunables, cell.kernel) if base["series"] else {},
            observers=self._observers(base["block"], repetition),
            is_last=is_last,
            load=self.load,
            clock=self.clock,
            suspended=self.suspended,
            counts_instructions=icount,
        )
        self.timing.workload_seconds += measured.seconds
        self.timing.repetitions += 1
        values = values_of(
            measured.outcome, workload, self.lab.all_compared(experiment), self._cpus()
        )
        status, message = exercise_status(measured.handed, experiment.handovers)
        return Sample(
            **base,
            status=status,
            **values,
            read_back=measured.read_back,
            counters=measured.handed | measured.observed,
            load=measured.load | {"boot_seconds": round(self._boot_seconds, 3)},
            # Other processes do not change the number of instructions.
            disturbed="" if icount else disturbance(measured.load, self.health),
            message=message,
        )

    def _observers(self, block: int, repetition: Repetition) -> tuple[Observer, ...]:
        own, most = self.plan.observers, self._repetitions
        if repetition.warmup:
            return own
        return observers_in(own, block=block, repetition=repetition.number, repetitions=most)

    def _topology(self) -> Topology | None:
        experiment = self.plan.experiment
        return None if experiment.target else self.lab.guests[self.lab.guest_of(experiment)]

    def _cpus(self) -> int | None:
        """Return the number of CPUs of the workload, None on a target."""
        topology = self._topology()
        return topology.vcpus if topology else None

    def _report(
        self, number: int, done: int, block: Sequence[Repetition], status: str, reason: str = ""
    ) -> None:
        # "booting" and "measuring" are about the next repetition, any other status about the last.
        is_past = done > 0 and status not in ("booting", "measuring")
        place = block[done - 1 if is_past else min(done, len(block) - 1)]
        cell = place.cell.label + "".join(f" {n}={v}" for n, v in place.cell.setting.items())
        self.report(Step(number, done, len(block), cell, status, reason))

    def report(self, step: Step, host: str = "", hosts: int = 1) -> None:
        """Report the progress of a block, of which `hosts` are measured at the same time."""
        remaining = self._remaining(step.block, step.done, step.repetitions)
        self.progress(
            Progress(
                experiment=self.plan.experiment.name,
                block=step.block,
                blocks_max=self.plan.statistics.blocks.max + self.blocks.extra,
                repetition=step.done,
                repetitions=step.repetitions,
                cell=step.cell,
                status=step.status,
                reason=step.reason,
                host=host,
                remaining_seconds=None if remaining is None else remaining / hosts,
            )
        )

    def _remaining(self, number: int, done: int, repetitions: int) -> float | None:
        blocks = self.plan.statistics.blocks
        most, fewest = (
            self.timing.remaining_seconds(
                repetitions=repetitions - done,
                blocks=max(0, end - number - 1),
                guests=len(self.plan.groups()),
                per_block=len(self.plan.block(number, repetitions=self._repetitions)),
            )
            for end in (blocks.max + self.blocks.extra, blocks.min + self.blocks.extra)
        )
        if most is None or fewest is None:
            return None
        return max(fewest, self.budget.limit(most, self.clock()))


def _failure(base: dict[str, Any], error: GuestError, status: SampleStatus) -> Sample:
    message = "\n".join([error.what, *error.console_tail[-20:]])
    fault = error.fault if status in CRASHES else ""
    return Sample(**base, status=status, value=None, message=message, fault=fault)
