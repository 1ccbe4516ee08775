"""One `labctl run`: prepare, take the host's measuring lock, and run the experiments."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from labctl import command_log
from labctl.arch import X86_64
from labctl.errors import BaselineFailed, UserError
from labctl.experiments import booting, early
from labctl.experiments import target as experiments_target
from labctl.experiments.description import Facts
from labctl.experiments.engine import Engine
from labctl.experiments.plan import Plan, plan
from labctl.experiments.progress import Progress
from labctl.experiments.record import as_recorded, check_unchanged, completed, document_of
from labctl.experiments.runner import Runner
from labctl.experiments.tunable_files import GuestChecks
from labctl.experiments.why import Pass
from labctl.experiments.why import passes as observing_passes
from labctl.guests.fleet import Fleet
from labctl.guests.prepare import Prepared, build_images, prepare
from labctl.host import lock
from labctl.host.facts import read_facts
from labctl.host.load import load
from labctl.kernels.build import BuildProgress
from labctl.lab.models import Lab
from labctl.runs import folder as run_folder
from labctl.runs.folder import RunFolder
from labctl.runs.record import RunRecord
from labctl.runs.sample import Sample
from labctl.stats import repetitions, stopping
from labctl.stats.health import HealthRule
from labctl.targets.machine import TargetMachine
from labctl.targets.prepare import prepare_target
from labctl.workloads.supply import Supply, archives, merged, merged_scripts, roots

_RESUMED = ("seed", "initramfs", "guests", "kernels", "host")


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Callbacks of a run."""

    building: Callable[[BuildProgress], None]
    waiting: Callable[[str], None]
    started: Callable[[str, int, str], None]  # run id, seed, accelerator
    measuring: Callable[[Progress], None]
    warning: Callable[[str], None] = lambda _: None
    # Returns what guests are measured with, in place of a build.
    preparing: Callable[[Lab, Sequence[Plan]], Ready] | None = None


def run(
    lab: Lab,
    names: Sequence[str],
    *,
    seed: int | None,
    events: Events,
    budget_seconds: float | None = None,
    check: Callable[[Prepared], None] = lambda _: None,
    why: bool = False,
    engine: Engine | None = None,
) -> RunFolder:
    """Measure experiments and return the folder of the run.

    With a budget, each experiment ends with the last block that probably fits into it,
    but never before the minimum of blocks. `check` is called before the first boot, and
    may raise. With `why`, the experiments are then measured once more with the observers
    that slow the kernel. With an engine, other hosts measure.

    Raises:
        UserError: an experiment is not in the lab.
        LabError: building, preparing or the store failed. Guest failures become samples.
    """
    chosen = secrets.randbelow(2**31) if seed is None else seed
    plans = [plan(lab, name, chosen) for name in _known(lab, names)]
    passes = observing_passes(lab, _known(lab, names), chosen) if why else []
    for one in passes:
        _build_pass(one, events)
    start = partial(opened, seed=chosen, events=events, engine=engine)
    with start(lab, plans, check=check) as open_run:
        for each in plans:
            open_run.measure(each, budget_seconds=budget_seconds)
    for one in passes:
        place = open_run.folder.path / one.observer.name
        with start(one.lab, one.plans, place=place) as traced:
            for each in one.plans:
                traced.measure(each)
    return open_run.folder


def _build_pass(one: Pass, events: Events) -> None:
    """Build the kernels of a pass, so that their errors come before the measurement."""
    if experiments_target.target_of(one.lab, one.plans) is None:
        kernels = dict.fromkeys(cell.kernel for p in one.plans for cell in p.cells)
        limits = GuestChecks.of(one.lab, one.plans)
        build_images(one.lab, kernels, events.building, limits=limits)


def resume(lab: Lab, run_id: str, *, events: Events, engine: Engine | None = None) -> RunFolder:
    """Resume an interrupted run; existing samples are not measured again.

    Raises:
        UserError: the lab or a kernel changed, or the host of a run without an engine.
    """
    folder = run_folder.resolve(lab.state_folder.runs, run_id)
    record, document = folder.read(), folder.document()
    missing = [what for what in _RESUMED if what not in document]
    if missing:
        raise UserError(
            f"cannot resume the run: missing {', '.join(missing)}",
            where=str(folder.path / "run.json"),
            hint="start a new run",
        )
    names = [experiment.name for experiment in record.experiments]
    lab = experiments_target.as_recorded(lab, record)
    seed = document["seed"]
    plans = [plan(lab, name, seed) for name in _known(lab, names)]
    choose = None if engine is None else lambda _: engine.choose(record.accel)
    with command_log.of_run() as log, _prepared(lab, plans, events, choose) as ready:
        log.use(folder.path)
        folder.store.recover()
        now = ready.document(folder, plans, seed, engine)
        now["experiments"] = as_recorded(now["experiments"], document["experiments"])
        # Keys that an older labctl did not record get their default.
        document["guests"] = completed(folder, document["guests"])
        for kernel in document["kernels"].values():
            kernel.setdefault("arch", X86_64.name)
        is_spread = engine is not None or "hosts" in document
        check_unchanged(folder, document, now, is_spread=is_spread)
        if is_spread:
            spread = document.setdefault("hosts", {document["host"]["id"]: document["host"]})
            spread |= {} if engine else {ready.prepared.host.id: ready.prepared.host.as_dict()}
            folder.write(folder.document() | {"hosts": spread})
        with _under_way(folder, ready, events, engine) as open_run:
            for each in plans:
                open_run.measure(each)
    return folder


def _known(lab: Lab, names: Sequence[str]) -> list[str]:
    unknown = [name for name in names if name not in lab.experiments]
    if unknown:
        raise UserError(
            f"experiment not found: {', '.join(unknown)}",
            where=str(lab.path),
            hint=f"available: {', '.join(lab.experiments)}",
        )
    return list(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Ready:
    """What a run is measured with: guests, or a target if `machine` is set."""

    prepared: Prepared
    machine: TargetMachine | None
    supplies: Mapping[str, Supply]

    def document(
        self, folder: RunFolder, plans: Sequence[Plan], seed: int, engine: Engine | None
    ) -> dict[str, Any]:
        """Return the JSON of a run that starts now."""
        prepared, is_placed = self.prepared, engine is None
        more = prepared, seed, self.supplies
        return document_of(prepared.lab, folder.id, plans, *more, is_placed=is_placed)


_Choose = Callable[[str], str] | None  # the accelerator of the hosts of an engine


@contextlib.contextmanager
def _prepared(
    lab: Lab, plans: Sequence[Plan], events: Events, choose: _Choose = None
) -> Iterator[Ready]:
    """Prepare guests, or connect to the target."""
    target = experiments_target.target_of(lab, plans)
    if target is None:
        own = events.preparing
        yield _prepare(lab, plans, events, choose) if own is None else own(lab, plans)
        return
    if choose is not None:
        raise UserError(
            f"target {target.name} cannot be used with a scheduler",
            where=str(lab.path),
            hint="measure without --scheduler, or in guests",
        )
    kernels = dict.fromkeys(cell.kernel for p in plans for cell in p.cells)
    supplies = early.supplies_of_target(lab, plans)
    check = partial(early.check_commands_of, lab=lab, plans=plans, supplies=supplies)
    files = {path: one for path, one in merged(supplies).items() if isinstance(one, Path)}
    # Files of a target's tunables may come from its modules, which are not in the source.
    limits = replace(GuestChecks.of(lab, plans), tunables={})
    more = files, merged_scripts(supplies), limits, archives(supplies)
    with prepare_target(lab, target, kernels, events.building, check, *more) as found:
        yield Ready(*found, supplies)


def _prepare(lab: Lab, plans: Sequence[Plan], events: Events, choose: _Choose) -> Ready:
    kernels = dict.fromkeys(cell.kernel for p in plans for cell in p.cells)
    limits = GuestChecks.of(lab, plans)
    supplies = early.check_commands(lab, plans)
    early.check_sizes(lab, plans, supplies, events.warning)
    if choose is None:
        early.check_memory(lab, plans, read_facts())
    disks = roots(supplies)
    prepared = prepare(lab, kernels, events.building, merged(supplies), limits, disks, choose)
    if choose is None:
        early.check_memory(lab, plans, prepared.facts)  # again: a build may take long
    return Ready(prepared, None, supplies)


@dataclass(slots=True)
class OpenRun:
    """A running measurement that holds the host's lock; on guests if `machine` is None."""

    folder: RunFolder
    prepared: Prepared
    machine: TargetMachine | None
    supplies: Mapping[str, Supply]
    document: dict[str, Any]  # of run.json
    events: Events
    engine: Engine | None = None

    def measure(
        self, each: Plan, blocks: int | None = None, *, budget_seconds: float | None = None
    ) -> None:
        """Measure the missing blocks of an experiment: all, or the first `blocks`.

        With a budget, only as many as probably fit into it.

        Raises as `Runner.run` does.
        """
        if blocks is not None:
            # lab.yaml does not allow a single block.
            fixed = each.statistics.blocks.model_copy(update={"min": blocks, "max": blocks})
            statistics = each.statistics.model_copy(update={"blocks": fixed})
            each = replace(each, statistics=statistics)
        prepared, machine, folder, engine = self.prepared, self.machine, self.folder, self.engine
        runner = Runner(
            lab=prepared.lab,
            plan=each,
            store=folder.store,
            boot=booting.booter(prepared, each, folder)
            if machine is None
            else experiments_target.booter(prepared, machine, each, folder),
            facts=Facts(
                run=folder.id,
                host=prepared.host.id if engine is None else "",
                accel=prepared.accel,
                images={name: (i.hash, i.series_hash) for name, i in prepared.images.items()},
            ),
            together=machine is None,
            retries=machine is None,
            load=load if machine is None else machine.load,
            supply=self.supplies[each.experiment.workload],
            progress=self.events.measuring,
            log_of=partial(booting.log_of, folder=folder),
            ended=_ended(prepared.lab, each),
            repetitions=_repetitions(prepared.lab, each),
            health=HealthRule.of(RunRecord.of(self.document)),
            budget_seconds=budget_seconds,
        )
        try:
            if engine is None:
                runner.run()
            else:
                engine.run(runner, prepared, folder)
        except BaselineFailed as error:
            error.where = str(folder.path / error.console) if error.console else None
            error.hint = f"{error.hint}; `labctl report {folder.id}` shows what was measured"
            raise
        finally:
            timing = self.document.setdefault("timing", {})
            timing.setdefault(each.experiment.name, []).append(asdict(runner.timing))
            if engine is not None:
                self.document["hosts"] = {**self.document.get("hosts", {}), **engine.facts}
            folder.write(self.document)


@contextlib.contextmanager
def opened(
    lab: Lab,
    plans: Sequence[Plan],
    *,
    seed: int,
    events: Events,
    check: Callable[[Prepared], None] = lambda _: None,
    place: Path | None = None,
    engine: Engine | None = None,
) -> Iterator[OpenRun]:
    """Start a run whose blocks the caller measures one by one; raises as `run` does.

    The run's folder is a new one, or `place`.
    """
    choose = None if engine is None else engine.choose
    with command_log.of_run() as log, _prepared(lab, plans, events, choose) as ready:
        check(ready.prepared)
        folder = run_folder.create(lab.state_folder.runs, place=place)
        log.use(folder.path)
        folder.write(ready.document(folder, plans, seed, engine))
        with _under_way(folder, ready, events, engine) as run:
            yield run


@contextlib.contextmanager
def _under_way(
    folder: RunFolder, ready: Ready, events: Events, engine: Engine | None
) -> Iterator[OpenRun]:
    document, prepared = folder.document(), ready.prepared
    events.started(folder.id, document["seed"], prepared.accel)
    with contextlib.ExitStack() as stack:
        if engine is None:
            stack.enter_context(lock.measuring(f"run {folder.id}", waiting=events.waiting))
            stack.enter_context(Fleet(prepared.lab.state_folder.guests).paused())
        yield OpenRun(folder, prepared, ready.machine, ready.supplies, document, events, engine)
    folder.write(document | {"finished": True})


def _repetitions(lab: Lab, each: Plan) -> Callable[[list[Sample]], int] | None:
    rule = each.statistics
    if rule.repetitions != "auto":
        return None
    goal = repetitions.Goal(rule.confidence, rule.stop_at_half_width, rule.blocks.min)
    scale = lab.compared(each.experiment).scale
    return partial(repetitions.chosen, baseline=each.baseline, goal=goal, scale=scale)


def _ended(lab: Lab, each: Plan) -> Callable[[list[Sample]], frozenset[str]]:
    target = each.statistics.stop_at_half_width
    if target is None:
        return lambda _: frozenset()
    return partial(
        stopping.ended,
        baseline=each.baseline,
        confidence=each.statistics.confidence,
        half_width=target,
        scale=lab.compared(each.experiment).scale,
    )
