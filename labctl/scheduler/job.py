"""The blocks of one experiment that workers measure, and their samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labctl.errors import BadOutput, BaselineFailed, UserError
from labctl.experiments.blocks import Block
from labctl.experiments.progress import Step, Timing
from labctl.experiments.runner import Runner
from labctl.runs.folder import RunFolder
from labctl.runs.sample import Sample, parse
from labctl.scheduler import worker
from labctl.scheduler.task import BlockResult, HostReport, Shipped, Task
from labctl.scheduler.work import Losses, keep_logs
from labctl.status import CRASHES, SampleStatus

_MEASURED = {SampleStatus.OK, SampleStatus.NOT_EXERCISED}
RESUME = "continue with `labctl run --resume`"


@dataclass(slots=True)
class Job:
    """An experiment: which block is next, and what came back; `setup` is that of its tasks.

    Decisions count the blocks that are complete.
    """

    runner: Runner
    folder: RunFolder
    setup: bytes = b""
    files: Mapping[str, Shipped] = field(default_factory=dict)
    losses: Losses = field(default_factory=lambda: Losses(RESUME))
    samples: list[Sample] = field(init=False)
    open: set[int] = field(default_factory=set)
    _next: int = 0
    _returned: list[Block] = field(default_factory=list)
    _failures: list[Sample] = field(default_factory=list)  # of guests
    _baseline_is_good: bool = False
    _done: tuple[int, int] | None = None  # next block and number of samples when it was done

    def __post_init__(self) -> None:
        self.samples = []
        self._note(self.runner.samples())

    def _note(self, samples: Sequence[Sample]) -> None:
        """Add the samples of blocks; what is asked before each block does not look at all again."""
        self.samples += samples
        self._failures += [one for one in samples if one.status in CRASHES]
        baseline = self.runner.plan.baseline
        self._baseline_is_good = self._baseline_is_good or any(
            one.kernel == baseline and not one.control and one.status in _MEASURED
            for one in samples
        )

    def take(self) -> Block | None:
        """Return the next block, None if there is none for now."""
        if self._returned:
            block = self._returned.pop(0)
        else:
            while True:
                number, blocks = self._next, self.runner.blocks
                if self._is_done():
                    return None
                self._next += 1
                if not blocks.is_elsewhere(number, self.samples):
                    break
            block = blocks.block(number, self.samples)
        self.open.add(block.number)
        return block

    def _is_done(self) -> bool:
        state = self._next, len(self.samples)
        if self._done != state:
            runner = self.runner
            now = runner.clock()
            if not runner.blocks.is_done(self._next, self.samples, runner.budget, now):
                return False
            self._done = state
        return True

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to measure."""
        return not self.open and not self._returned and self._is_done()

    def give_back(self, block: Block) -> None:
        """Let another worker measure a block that its worker did not."""
        self.open.discard(block.number)
        self._returned.append(block)

    def lose(self, block: Block) -> None:
        """Let another worker measure a block whose worker died.

        Raises:
            HostError: several workers died with it.
        """
        self.give_back(block)
        name = self.runner.plan.experiment.name
        self.losses.add(block.number, f"measured {self.title(block)} of experiment {name}")

    def title(self, block: Block) -> str:
        """Return what a block is called."""
        return f"block {block.number + 1}"

    def call(self, block: Block, topic: str, key: str) -> tuple[Callable[[Any], object], object]:
        """Return the function that measures a block on a worker, and its argument."""
        task = Task(
            setup=self.setup,
            block=block,
            topic=topic,
            key=key,
            baseline_is_good=self.baseline_is_good,
            failures=self.failures_before(block.number),
        )
        return worker.measure, task

    def tell(self, host: str, event: Mapping[str, Any], hosts: int) -> None:
        """Report the progress of a block on one of `hosts`."""
        self.runner.report(_step_of(event["step"]), host, hosts=hosts)

    @property
    def baseline_is_good(self) -> bool:
        """Whether the baseline was measured at least once."""
        return self._baseline_is_good

    def failures_before(self, number: int) -> tuple[Sample, ...]:
        """Return the failures of guests in earlier blocks."""
        return tuple(one for one in self._failures if one.block < number)

    def keep(self, block: Block, result: BlockResult, report: HostReport) -> None:
        """Store the samples and logs of a block.

        Raises:
            BadOutput: a sample is damaged, or is not of this block and host.
            BaselineFailed: the first repetition of the baseline failed.
            HostError: the disk is full or fails.
        """
        if result.baseline is not None:
            self.keep_logs(result.logs)
            failed = result.baseline
            what = f"worker {report.name}: {failed.what}"
            raise BaselineFailed(what, console=failed.where or "")
        where = f"worker {report.name}, block {block.number + 1}"
        own = [_checked(line, where, self.runner, block, report) for line in result.lines]
        self.keep_logs(result.logs)
        self.folder.store.append_block(own)
        self._note(own)
        self.open.discard(block.number)
        self.runner.budget.blocks += 1
        _add(self.runner.timing, result.timing)
        if own:
            last = own[-1]
            step = Step(block.number, len(own), len(own), last.label, last.status)
            self.runner.report(step, report.name)

    def keep_logs(self, logs: Mapping[str, bytes]) -> None:
        """Store the logs of guests; raise BadOutput if a path is not that of a guest's log."""
        keep_logs(self.folder.path, logs)


def _checked(line: bytes, where: str, runner: Runner, block: Block, report: HostReport) -> Sample:
    try:
        sample = parse(line, where)
    except UserError as error:
        raise BadOutput(error.what, where=where) from error
    facts = runner.facts
    expected = (facts.run, runner.plan.experiment.name, block.number, report.id, facts.accel)
    got = (sample.run, sample.experiment, sample.block, sample.host, sample.accel)
    if got != expected:
        raise BadOutput(f"sample of another block: expected {expected}, got {got}", where=where)
    return sample


def _add(total: Timing, one: Timing) -> None:
    total.boot_seconds += one.boot_seconds
    total.workload_seconds += one.workload_seconds
    total.boots += one.boots
    total.repetitions += one.repetitions


def _step_of(event: Sequence[object]) -> Step:
    """Return a worker's progress in an event."""
    block, done, repetitions, cell, status, reason = event
    assert isinstance(block, int)
    assert isinstance(done, int)
    assert isinstance(repetitions, int)
    return Step(block, done, repetitions, str(cell), str(status), str(reason))
