"""The fixture `measure`: measure workloads in a guest, and experiments of the lab."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from labctl.errors import UserError
from labctl.experiments import session, tunables
from labctl.experiments.plan import plan
from labctl.experiments.repetition import value_of
from labctl.experiments.steps import Steps
from labctl.lab.models import Lab
from labctl.reports import failed
from labctl.reports.document import document
from labctl.reports.sentence import control, sentence
from labctl.runs.folder import RunFolder
from labctl.stats.comparison import Comparison, ExperimentResult
from labctl.stats.stored import results_of
from labctl.testing.bench import Bench
from labctl.testing.cases import as_scalar, known
from labctl.testing.guest import LabGuest
from labctl.testing.leases import Room
from labctl.units import Scalar
from labctl.workloads.supply import NOTHING


@dataclass(frozen=True, slots=True)
class Measured:
    """One repetition of a workload: the metric (times in seconds) and its parsed output.

    `counters` are the increases of the series' counters `handovers` and `pages_handed`,
    if it has them.
    """

    value: float
    measurements: Mapping[str, Any]
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True, repr=False)
class Compared:
    """A measured experiment; `result["mine"]` is the comparison of the kernel `mine`.

    Its text is the summary of the report, for assertion messages.
    """

    run: RunFolder
    result: ExperimentResult

    def __getitem__(self, kernel: str) -> Comparison:
        return self.cell(kernel)

    def cell(self, kernel: str, **setting: Scalar) -> Comparison:
        """Return the comparison of a kernel with a setting of the experiment's matrix.

        Raises:
            UserError: no cell or more than one cell matches.
        """
        names = known("compared kernel", kernel, {c.kernel: None for c in self.result.cells})
        found = [
            cell
            for cell in self.result.cells
            if cell.kernel == names and setting.items() <= dict(cell.setting).items()
        ]
        if len(found) != 1:
            settings = ", ".join(str(dict(c.setting)) for c in self.result.cells)
            raise UserError(
                f"{len(found)} cells of {kernel} match {setting}", hint=f"settings: {settings}"
            )
        return found[0]

    def __repr__(self) -> str:
        (content,) = document(self.run.read(), [self.result]).experiments
        lines = [
            sentence(content),
            control(content),
            *failed.findings(content),
            *failed.lines(content.failures),
            *content.warnings,
        ]
        return "\n".join([*lines, f"for details, run `labctl report {self.run.id}`"])


@dataclass(frozen=True, slots=True)
class Measure:
    """Measure `measure("free")` in this test's guest, `measure.compare("smoke")` in new ones."""

    bench: Bench = field(repr=False)
    guest: LabGuest | None
    events: session.Events = field(repr=False)
    shown: Callable[[], AbstractContextManager[object]] = field(
        default=contextlib.nullcontext, repr=False
    )

    def __call__(self, workload: str, **parameters: Scalar) -> Measured:
        """Run a workload of lab.yaml once in the guest; `parameters` override its parameters.

        Raises:
            UserError: the workload is unknown, or the test has no guest.
            GuestError: the guest or the workload fails.
        """
        if self.guest is None:
            raise UserError("the test has no guest", hint="add the fixture `guest`")
        lab = self.bench.lab
        found = lab.workloads[known("workload", workload, lab.workloads)]
        values = {name: as_scalar(name, value) for name, value in parameters.items()}
        counters = tunables.counter_files(lab.tunables, self.guest.case.kernel)
        steps = Steps(found, self.bench.supplies(self.guest.case.kernel).get(workload, NOTHING))
        with steps.repetition(self.guest):
            before = tunables.read_counters(self.guest, counters)
            outcome = steps.command(self.guest, values)
            after = tunables.read_counters(self.guest, counters)
        value, measurements = value_of(outcome, found, found.metric)
        counted = {name: after[name] - before[name] for name in before if name in after}
        return Measured(value, measurements, counted)

    def compare(self, experiment: str, *, seed: int | None = None) -> Compared:
        """Measure an experiment of lab.yaml in new guests, with the lab's statistics.

        Other tests of this lab wait until it finishes. The run is stored like a run of
        `labctl run`.

        Raises:
            UserError: the experiment is unknown.
            HostError: there is not enough memory for its guests.
        """
        lab = self.bench.lab
        known("experiment", experiment, lab.experiments)
        with self._alone(lab, experiment), self.shown():
            folder = session.run(lab, [experiment], seed=seed, events=self.events)
        (result,) = results_of(folder.read(), folder.store.samples())
        return Compared(folder, result)

    @contextlib.contextmanager
    def _alone(self, lab: Lab, experiment: str) -> Iterator[None]:
        topology = lab.guests[lab.guest_of(experiment)]
        room = Room()
        for _ in plan(lab, experiment, 0).groups():
            room += Room.of(topology)
        self.bench.close()
        with self.bench.room(room), self.bench.quiet.measuring():
            yield
