"""Plan x guests -> samples: boots every block afresh, visits its cells, writes each sample at once.

The runner knows no QEMU: it gets its guests through a callable, so that all of
it runs on a synthetic guest too.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from labctl import host
from labctl.errors import BadOutput, BaselineFailed, GuestError
from labctl.experiments import tunables
from labctl.experiments.plan import BootGroup, Cell, Plan, Visit
from labctl.experiments.workload import measure
from labctl.lab_models import Lab
from labctl.results.failures import first_words, whose
from labctl.results.health import (
    HealthRule,
    disturbance,
    disturbed_blocks,
    extra_blocks,
    usable,
)
from labctl.results.store import Sample, Store
from labctl.transports import Outcome

_MEASURED = {"ok", "not-exercised"}
# After these the guest measures nothing more that could be believed.
_FATAL = {"panic", "splat", "hung", "lost", "boot-failed"}


class GuestLike(Protocol):
    """What the runner needs of a guest."""

    @property
    def boot_id(self) -> str:
        """The kernel's id of this boot."""

    def wait_ready(self, deadline_seconds: float) -> None:
        """Wait for its init."""

    def run(
        self, argv: Sequence[str] | str, *, timeout_seconds: float, stdin: bytes = b""
    ) -> Outcome:
        """Run a command."""

    def exchange(self, writes: Mapping[str, str], reads: Sequence[str]) -> dict[str, str]:
        """Write files, then read some."""

    def pause(self) -> None:
        """Stop its vCPUs."""

    def resume(self) -> None:
        """Let its vCPUs go on."""


Boot = Callable[[BootGroup, int], AbstractContextManager[GuestLike]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is the same for all samples of a run; `images` maps a kernel to (image, series) hash."""

    run: str
    host: str
    accel: str
    images: Mapping[str, tuple[str, str | None]]
    boot_deadline_seconds: float = 180.0


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
    reason: str = ""  # of a repetition that failed


@dataclass(slots=True)
class Timing:
    """Where the wall time of a run went, in seconds."""

    boot_seconds: float = 0.0
    workload_seconds: float = 0.0
    total_seconds: float = 0.0
    boots: int = 0
    visits: int = 0


@dataclass(slots=True)
class Runner:
    """Carries out the plan of one experiment; call `run`."""

    lab: Lab
    plan: Plan
    store: Store
    boot: Boot
    facts: Facts
    progress: Callable[[Progress], None] = lambda _: None
    ended: Callable[[list[Sample]], frozenset[str]] = lambda _: frozenset()
    # Whether all guests of a block can be up together; a machine runs one kernel at a time.
    together: bool = True
    clock: Callable[[], float] = time.monotonic
    load: Callable[[], Mapping[str, float]] = host.load
    log_of: Callable[[GuestLike], str] = lambda _: ""  # its console, from the run's folder
    health: HealthRule = field(default_factory=HealthRule)
    timing: Timing = field(default_factory=Timing)
    _baseline_is_good: bool = False
    _extra: int = 0  # blocks measured again
    _ended: frozenset[str] = frozenset()  # cells that need no further block
    _told: set[BootGroup] = field(default_factory=set)
    _owned: dict[BootGroup, contextlib.ExitStack] = field(default_factory=dict)

    def run(self) -> None:
        """Measure what is not measured yet, block by block.

        Blocks that the host disturbed stay in the store, marked, and a few of them are
        measured again at the end. A guest's failure becomes samples, not an exception.
        Raises what the store raises, and KeyboardInterrupt: every finished sample is then
        on the disk. Raises BaselineFailed if the baseline's first repetition fails: nothing
        can be compared then.
        """
        began = self.clock()
        # What stopped an earlier attempt may have fallen between two blocks.
        try:
            for number in itertools.count():
                if self._is_done(number):
                    break
                self._block(number)
        finally:
            self.timing.total_seconds += self.clock() - began

    def _is_done(self, number: int) -> bool:
        """Tell, before a block, whether it is needed; cells that have ended are left out of it.

        Only earlier blocks count: a run that goes on in the middle of a block decides alike.
        """
        blocks = self.plan.statistics.blocks
        before = [sample for sample in self._samples() if sample.block < number]
        self._extra = extra_blocks(len(disturbed_blocks(before)), blocks.min)
        if number >= blocks.max + self._extra:
            return True
        if number < blocks.min + self._extra:
            return False
        self._ended |= self.ended(usable(before, blocks.min)[0])
        compared = [cell.id for cell in self.plan.cells if cell.kernel != self.plan.baseline]
        return bool(compared) and self._ended.issuperset(compared)

    def _samples(self) -> list[Sample]:
        name = self.plan.experiment.name
        return [sample for sample in self.store.samples() if sample.experiment == name]

    def _block(self, number: int) -> None:
        self._told.clear()
        parts = self._parts(self._open_visits(number))
        visits = [visit for part in parts for visit in part]
        order = 0
        for part in parts:
            with contextlib.ExitStack() as stack:
                self._tell(number, order, visits, "booting")
                guests, failures = self._boot(stack, number, part)
                for visit in part:
                    self._tell(number, order, visits, "measuring")
                    sample = self._visit(number, order, visit, guests, failures)
                    self.store.append(sample)
                    order += 1
                    reason = "" if sample.status == "ok" else first_words(sample)
                    self._tell(number, order, visits, sample.status, reason)
                    self._check_baseline(sample)
        why = disturbed_blocks(self._samples()).get(number)
        if visits and why:
            self._tell(number, len(visits), visits, f"block disturbed: {why}")

    def _check_baseline(self, sample: Sample) -> None:
        """Raise if the baseline has failed before any repetition of it was good."""
        is_baseline = sample.kernel == self.plan.baseline and not sample.control
        if self._baseline_is_good or not is_baseline:
            return
        own = {
            one.status for one in self._samples() if one.kernel == sample.kernel and not one.control
        }
        if not own.isdisjoint(_MEASURED):
            self._baseline_is_good = True
            return
        raise BaselineFailed(
            f"experiment {sample.experiment}: the first repetition of the baseline "
            f"{sample.kernel} failed: {sample.status} ({whose(sample.status)}): "
            f"{first_words(sample)}",
            console=sample.console,
        )

    def _parts(self, visits: list[Visit]) -> list[list[Visit]]:
        """Return what is measured between two changes of the kernels that are up."""
        parts: dict[BootGroup | None, list[Visit]] = {}
        for visit in visits:
            parts.setdefault(None if self.together else visit.cell.group, []).append(visit)
        return list(parts.values())

    def _open_visits(self, number: int) -> list[Visit]:
        """Return the visits of a block without a sample, and the warm-ups that they need.

        A block that was interrupted boots afresh, so its guests need warming up
        again: under a new number, for a warm-up is a sample too and is kept.
        """
        done = {s.key for s in self._samples()}
        name = self.plan.experiment.name
        every = self.plan.block(number, self._ended)
        measured = [v for v in every if not v.warmup and self._key(name, number, v) not in done]
        groups = {v.cell.group for v in measured}
        warmups = []
        taken = {key for key in done if key[1] == number and key[3]}
        for visit in every:
            if visit.warmup and visit.cell.group in groups:
                repetition = visit.repetition
                while (key := (name, number, visit.cell.id, True, repetition)) in taken:
                    repetition += 1
                taken.add(key)
                warmups.append(Visit(visit.cell, repetition, warmup=True))
        return [*warmups, *measured]

    @staticmethod
    def _key(name: str, number: int, visit: Visit) -> tuple[str, int, str, bool, int]:
        return (name, number, visit.cell.id, visit.warmup, visit.repetition)

    def _boot(
        self, stack: contextlib.ExitStack, number: int, visits: Sequence[Visit]
    ) -> tuple[dict[BootGroup, GuestLike], dict[BootGroup, GuestError]]:
        """Boot the guests of a block side by side, then pause them all."""
        began = self.clock()
        groups = list(dict.fromkeys(visit.cell.group for visit in visits))
        guests = {group: self._enter(stack, group, number) for group in groups}
        failures: dict[BootGroup, GuestError] = {}
        for group, guest in guests.items():
            try:
                guest.wait_ready(self.facts.boot_deadline_seconds)
            except GuestError as error:
                self._give_up(group, error, failures)
        for group, guest in guests.items():
            try:
                if group not in failures:
                    guest.pause()
            except GuestError as error:
                self._give_up(group, error, failures)
        self.timing.boot_seconds += self.clock() - began
        self.timing.boots += len(groups)
        return guests, failures

    def _enter(self, stack: contextlib.ExitStack, group: BootGroup, number: int) -> GuestLike:
        own = self._owned[group] = stack.enter_context(contextlib.ExitStack())
        return own.enter_context(self.boot(group, number))

    def _give_up(
        self, group: BootGroup, error: GuestError, failures: dict[BootGroup, GuestError]
    ) -> None:
        """End a guest that cannot be believed any more, so that it disturbs no other."""
        failures[group] = error
        self._owned[group].close()

    def _visit(
        self,
        number: int,
        order: int,
        visit: Visit,
        guests: Mapping[BootGroup, GuestLike],
        failures: dict[BootGroup, GuestError],
    ) -> Sample:
        group = visit.cell.group
        guest = guests[group]
        base = self._describe(number, order, visit, guest)
        failed = failures.get(group)
        if failed is not None:
            # The failure is told once; what it made impossible is skipped.
            status = "skipped" if group in self._told else failed.status
            self._told.add(group)
            return Sample(**base, status=status, value=None, message=_message(failed))
        try:
            return self._measure(visit.cell, guest, base)
        except GuestError as error:
            if error.status in _FATAL:
                self._give_up(group, error, failures)
                self._told.add(group)
            return Sample(**base, status=error.status, value=None, message=_message(error))

    def _measure(self, cell: Cell, guest: GuestLike, base: dict[str, Any]) -> Sample:
        counters = tunables.counter_files(self.lab.tunables, cell.kernel) if base["series"] else {}
        workload = self.lab.workloads[self.plan.experiment.workload]
        guest.resume()
        try:
            read_back, before = tunables.apply(guest, self.lab.tunables, cell.tunables, counters)
            began = self.clock()
            load = self.load()
            outcome = guest.run(workload.argv(cell.parameters), timeout_seconds=workload.timeout)
            seconds = self.clock() - began
            load = _load_between(load, self.load(), seconds)
            after = tunables.read_counters(guest, counters)
        except BaseException:
            with contextlib.suppress(GuestError):
                guest.pause()
            raise
        guest.pause()  # one that cannot be paused would disturb the others
        self.timing.workload_seconds += seconds
        self.timing.visits += 1
        value, measurements = value_of(outcome, base["metric"], self._cpus())
        handed = {name: after[name] - before[name] for name in before if name in after}
        status, message = _exercised(handed, self.plan.experiment.handovers)
        return Sample(
            **base,
            status=status,
            value=value,
            read_back=read_back,
            measurements=measurements,
            counters=handed,
            load=load,
            disturbed=disturbance(load, self.health),
            message=message,
        )

    def _cpus(self) -> int | None:
        """Return how many CPUs the workload has; of a target it is not known here."""
        experiment = self.plan.experiment
        if experiment.target is not None:
            return None
        return self.lab.guests[self.lab.guest_of(experiment)].vcpus

    def _describe(self, number: int, order: int, visit: Visit, guest: GuestLike) -> dict[str, Any]:
        experiment, cell = self.plan.experiment, visit.cell
        image, series = self.facts.images[cell.kernel]
        return {
            "run": self.facts.run,
            "experiment": experiment.name,
            "workload": experiment.workload,
            "metric": self.lab.metric_of(experiment),
            "block": number,
            "order": order,
            "repetition": visit.repetition,
            "warmup": visit.warmup,
            "kernel": cell.kernel,
            "label": cell.label,
            "control": cell.control,
            "cell": cell.id,
            "setting": dict(cell.setting),
            "parameters": dict(cell.parameters),
            "boot_id": guest.boot_id,
            "image": image,
            "series": series,
            "host": self.facts.host,
            "accel": self.facts.accel,
            "console": self.log_of(guest),
            "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }

    def _tell(
        self, number: int, done: int, visits: Sequence[Visit], status: str, reason: str = ""
    ) -> None:
        # A status is that of the visit before, once there is a sample of it.
        is_past = done > 0 and status not in ("booting", "measuring")
        place = visits[done - 1 if is_past else min(done, len(visits) - 1)]
        self.progress(
            Progress(
                experiment=self.plan.experiment.name,
                block=number,
                blocks_max=self.plan.statistics.blocks.max + self._extra,
                visit=done,
                visits=len(visits),
                cell=place.cell.label + "".join(f" {n}={v}" for n, v in place.cell.setting.items()),
                status=status,
                reason=reason,
                remaining_seconds=self._remaining(number, done, len(visits)),
            )
        )

    def _remaining(self, number: int, done: int, visits: int) -> float | None:
        if not self.timing.visits:
            return None
        visit = self.timing.workload_seconds / self.timing.visits
        boots = self.timing.boot_seconds / max(1, self.timing.boots) * len(self.plan.groups())
        later = self.plan.statistics.blocks.max + self._extra - number - 1
        return visit * (visits - done) + later * (boots + visit * len(self.plan.block(number)))


def _exercised(handed: Mapping[str, int], handovers: str) -> tuple[str, str]:
    """Return a status and its reason: was the series entered, and should it have been?"""
    if "handovers" not in handed or (handed["handovers"] > 0) == (handovers == "required"):
        return "ok", ""
    if handovers == "required":
        return "not-exercised", "series not exercised: handovers unchanged"
    return "exercised", f"expected no handovers, got {handed['handovers']}"


def value_of(
    outcome: Outcome, metric: str, cpus: int | None = None
) -> tuple[float, dict[str, Any]]:
    """Return the metric of a workload that ended, and all that it measured; see `measure`.

    Raises:
        BadOutput: it failed, or did not print the metric.
    """
    if outcome.status != 0:
        said = (outcome.stderr or outcome.stdout).decode("utf-8", "replace").strip()[-500:]
        raise BadOutput(f"workload exited with status {outcome.status}: {said}")
    return measure(outcome.text, metric, took_seconds=outcome.seconds, cpus=cpus)


def _load_between(
    before: Mapping[str, float], after: Mapping[str, float], seconds: float
) -> dict[str, float]:
    """Return what accumulates as differences, and the rest as it is after the repetition."""
    found = {
        name: round(value - before.get(name, value), 3) if _accumulates(name) else value
        for name, value in after.items()
    }
    return {**found, "wall_seconds": round(seconds, 3)}


def _accumulates(name: str) -> bool:
    return name.endswith(("_seconds", "_count"))


def _message(error: GuestError) -> str:
    return (
        error.what
        if not error.console_tail
        else f"{error.what}\n" + "\n".join(error.console_tail[-20:])
    )
