"""Measure one nightly run: all experiments within the time budget, then repeats for alarms.

Each run is appended to the history. `nightly.history` decides what is measured again.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from labctl.errors import BaselineFailed, HostError
from labctl.experiments import session
from labctl.experiments.engine import Engine
from labctl.experiments.plan import Plan, plan
from labctl.experiments.session import Events
from labctl.experiments.variants import beside, plan_of, with_settings
from labctl.lab.models import Kernel, Lab
from labctl.nightly import commits, history
from labctl.nightly.budget import Spent, next_experiment
from labctl.nightly.history import Watched
from labctl.nightly.records import KernelChecks, Kind, NightlyRecord
from labctl.runs.folder import RunFolder
from labctl.runs.record import RunRecord
from labctl.stats.compare import half_width
from labctl.stats.health import usable
from labctl.stats.stored import results_of

# The rest is for measurements that an alarm requires.
MATRIX_SHARE = 2 / 3
_HOW_COMPARED: Any = {"scale": True, "metrics": {"__all__": {"scale", "minimum_effect"}}}
_SEEDS = 2**31
_BEFORE = ".before"  # suffix of the kernel of an earlier nightly run


class OpenRun(Protocol):
    """A run that is measured block by block."""

    @property
    def folder(self) -> RunFolder:
        """The folder of the run."""

    def measure(self, each: Plan, blocks: int | None = None) -> None:
        """Measure an experiment until it has `blocks` blocks."""


Open = Callable[[Lab, Sequence[Plan], int], AbstractContextManager[OpenRun]]
# Returns the outcome of the checks by kernel.
Check = Callable[[Lab], dict[str, KernelChecks]]


def opener(events: Events, engine: Engine | None = None) -> Open:
    """Return the function that opens real runs; with an engine, other hosts measure them."""

    def begin(lab: Lab, plans: Sequence[Plan], seed: int) -> AbstractContextManager[OpenRun]:
        return session.opened(lab, plans, seed=seed, events=events, engine=engine)

    return begin


def no_check(_: Lab) -> dict[str, KernelChecks]:
    """Return no outcome."""
    return {}


@dataclass(slots=True, kw_only=True)
class Nightly:
    """Measures a nightly run of some experiments; call `run`."""

    lab: Lab
    experiments: Sequence[str]
    budget_seconds: float
    history: Path
    open_run: Open
    image_of: Callable[[str], Path | None]  # the bzImage of an image's hash
    keep: Callable[[NightlyRecord], None] = lambda _: None  # receives the nightly record
    check: Check = no_check
    report: Callable[[str], None] = lambda _: None
    at_once: Callable[[], int] = lambda: 1  # blocks that are measured at the same time
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _ends: float = math.inf
    _night: str = ""
    _main: str = ""  # id of the main run
    _given_up: set[str] = field(default_factory=set)  # experiments whose baseline fails
    # Seconds of an experiment's last block, or of those at the same time.
    _took: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Measure, and append the records to the history.

        Raises:
            UserError: an experiment is not in the lab or compares differences, or the history
                is damaged.
            HostError: the time budget did not suffice for one block.
            LabError: building, preparing or the disk failed.
        """
        began = self.clock()
        for name in self.experiments:
            self.lab.require_ratio(name, "nightly")
        history.read(self.history)  # report damage before hours of measuring
        self._ends = began + self.budget_seconds
        self._night = self.now().date().isoformat()
        # The kernels are checked, and the commits read, before anything is measured.
        found = commits.commits_of(self.lab)
        self._matrix(began, found, self.check(self.lab))
        while self._fulfil_one():
            pass

    def _matrix(
        self, began: float, found: Mapping[str, str], checks: dict[str, KernelChecks]
    ) -> None:
        seed = secrets.randbelow(_SEEDS)
        plans = {name: plan(self.lab, name, seed) for name in self.experiments}
        matrix_ends = began + MATRIX_SHARE * self.budget_seconds
        with self.open_run(self.lab, list(plans.values()), seed) as run:
            while chosen := next_experiment(
                [self._spent(run, p) for n, p in plans.items() if n not in self._given_up],
                matrix_ends - self.clock(),
            ):
                self._block(run, plans[chosen])
            if not self._took:
                raise HostError(
                    "time budget exhausted before the first block, by building or by waiting for "
                    "another measurement",
                    hint="increase --budget, or run `labctl build` first",
                )
        self._main = run.folder.id
        record = self._record("night", run, self.lab)
        record = replace(record, commits=dict(found), checks=checks or UNSET)
        history.append(self.history, record)
        self.keep(record)

    def _spent(self, run: OpenRun, each: Plan) -> Spent:
        name, statistics = each.experiment.name, each.statistics
        every = [one for one in run.folder.store.samples() if one.experiment == name]
        samples, _ = usable(every, statistics.blocks.min)
        width = math.inf
        if samples:
            width = half_width(
                samples,
                baseline=each.baseline,
                confidence=statistics.confidence,
                better=self.lab.better_of(each.experiment),
            )
        return Spent(
            name=name,
            blocks=len({one.block for one in samples}),
            blocks_min=statistics.blocks.min,
            blocks_max=statistics.blocks.max,
            block_seconds=self._took.get(name),
            half_width=width,
            target=statistics.stop_at_half_width,
        )

    def _block(self, run: OpenRun, each: Plan) -> None:
        name, began = each.experiment.name, self.clock()
        done, most = _blocks(run, name), each.statistics.blocks.max
        try:
            run.measure(each, done + max(1, min(self.at_once(), most - done)))
        except BaselineFailed as error:  # the other experiments continue
            self.report(str(error))
            self._given_up.add(name)
        self._took[name] = self.clock() - began

    def _fulfil_one(self) -> bool:
        """Measure once for an alarm; return False if none is open or no time is left."""
        cells = history.watched(history.read(self.history)).values()
        alarmed = [c for c in cells if c.records[-1].run == self._main and c.last_analysis.request]
        for cell in alarmed:
            blocks = self.lab.resolve_statistics(cell.experiment).blocks.min
            turns = math.ceil(blocks / self.at_once())
            if self.clock() + turns * self._took.get(cell.experiment, 0.0) > self._ends:
                self.report(f"{cell.experiment}: no time left to measure {cell.cell} again")
                continue
            alike = [one for one in alarmed if _demand(one) == _demand(cell)]
            try:
                if cell.last_analysis.request == "again":
                    self._again(blocks, alike)
                    return True
                if self._against(blocks, alike):
                    return True
            except BaselineFailed as error:
                self.report(str(error))
        return False

    def _again(self, blocks: int, cells: Sequence[Watched]) -> None:
        name, baseline = cells[0].experiment, cells[0].baseline
        wanted = {cell.cell for cell in cells}
        self.report(f"{name}: {', '.join(sorted(wanted))}: unexpected result, measuring again")
        seed = secrets.randbelow(_SEEDS)
        again = plan_of(
            self.lab, name, seed, lambda cell: cell.kernel == baseline or cell.id in wanted
        )
        with self.open_run(self.lab, [again], seed) as run:
            run.measure(again, blocks)
        record = self._record("again", run, self.lab, cells)
        history.append(self.history, replace(record, of=self._main))

    def _against(self, blocks: int, cells: Sequence[Watched]) -> bool:
        """Measure today's kernel against the earlier one; return False if that image is missing."""
        name, own = cells[0].experiment, self.lab.kernels[cells[0].kernel]
        earlier = compared(cells[0])
        bzimage = self.image_of(earlier.image(own.name))
        if bzimage is None:
            self.report(f"{name}: image of {own.name} from {earlier.night} is missing or damaged")
            return False
        self.report(f"{name}: comparing {own.name} with its image from {earlier.night}")
        before = Kernel(
            name=f"{own.name}{_BEFORE}",
            source=f"image:{bzimage}",
            command_line=own.command_line,
            arch=own.arch,
        )
        lab = beside(self.lab, name, own.name, {before.name: before, own.name: own})
        seed = secrets.randbelow(_SEEDS)
        trial = plan_of(lab, name, seed, with_settings([cell.setting for cell in cells]))
        with self.open_run(lab, [trial], seed) as run:
            run.measure(trial, blocks)
        record = self._record("against", run, lab, cells)
        history.append(self.history, replace(record, of=self._main, against=earlier.night))
        return True

    def _record(
        self, kind: Kind, run: OpenRun, lab: Lab, cells: Sequence[Watched] | None = None
    ) -> NightlyRecord:
        """Return the record of a run with the given cells, all of them if None."""
        record = run.folder.read()
        samples = run.folder.store.samples()
        results = results_of(record, samples)
        setups = {}
        for each in results:
            hosts = {one.host for one in samples if one.experiment == each.name}
            setups[each.name] = setup_of(lab, each.name, record, hosts)
        only = None if cells is None else [cell.key for cell in cells]
        return history.record_of(kind, self._night, record, results, setups=setups, only=only)


def compared(cell: Watched) -> NightlyRecord:
    """Return the nightly record whose kernel is compared with today's."""
    index = cell.last_analysis.compared
    return cell.records[0 if index is None else index]


def _demand(cell: Watched) -> tuple[str, ...]:
    """Return a key: cells with equal keys can be measured in one run."""
    if cell.last_analysis.request == "again":
        return cell.experiment, "again"
    return cell.experiment, "against", cell.kernel, compared(cell).run


def _blocks(run: OpenRun, experiment: str) -> int:
    """Return the number of blocks of an experiment in a run."""
    return len({one.block for one in run.folder.store.samples() if one.experiment == experiment})


def _known(value: str | UnsetType) -> str | None:
    return None if value is UNSET else value


def setup_of(lab: Lab, name: str, run: RunRecord, used: Collection[str] = ()) -> dict[str, str]:
    """Return the facts of an experiment that must be equal for runs to be comparable.

    `used` has the ids of the hosts that measured it, which count if they are workers.
    """
    experiment = lab.experiments[name]
    measured = {"metric": lab.metric_of(experiment), "better": lab.better_of(experiment)}
    workload = lab.workloads[experiment.workload].model_copy(update=measured)
    place = experiment.target or lab.guests[lab.guest_of(experiment)].model_dump_json()
    # The texts are compared with those of older records, so they must not change.
    placement = msgspec.json.decode(msgspec.json.encode(run.experiment(name).placement or None))
    hosts = [one for host, one in sorted(run.hosts.items()) if host in used] or [run.host]
    return {
        "host": ", ".join(str(_known(one.id)) for one in hosts),
        "QEMU": ", ".join(sorted({str(_known(one.qemu)) for one in hosts})),
        "accelerator": run.accel,
        "baseline": str(run.kernels[experiment.baseline].image),
        "guest": place,
        "placement": str(placement),
        "guest program": str(run.initramfs),
        # The scale is always ratio, and does not change what is measured.
        "workload": workload.model_dump_json(exclude=_HOW_COMPARED),
        "setting": str(dict(experiment.set)),
    }
