"""An experiment as cells, boot groups and ordered blocks. Pure: same lab, same seed, same plan."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection
from dataclasses import dataclass

from labctl.lab.command_line import parameters
from labctl.lab.models import Experiment, Lab
from labctl.lab.names import safe_name
from labctl.lab.statistics import Statistics
from labctl.observers.observer import Observer
from labctl.stats.repetitions import FIRST
from labctl.units import Scalar


@dataclass(frozen=True, slots=True)
class Cell:
    """One kernel with one setting of everything.

    `setting` holds the matrix values that make this cell (what a report shows),
    `tunables` everything written to guest files before a repetition,
    `kernel_parameters` what goes on the kernel's command line, `parameters` the
    workload's.
    """

    id: str
    kernel: str
    control: bool
    setting: dict[str, Scalar]
    tunables: dict[str, Scalar]
    kernel_parameters: dict[str, Scalar]
    parameters: dict[str, Scalar]

    @property
    def label(self) -> str:
        """The kernel's name, marked for the A/A control."""
        return f"{self.kernel} (A/A)" if self.control else self.kernel

    @property
    def group(self) -> BootGroup:
        """The guest that this cell is measured in."""
        return BootGroup(self.kernel, self.control, tuple(sorted(self.kernel_parameters.items())))


@dataclass(frozen=True, slots=True)
class BootGroup:
    """Cells that can share a boot: same kernel, same command line, same label."""

    kernel: str
    control: bool
    kernel_parameters: tuple[tuple[str, Scalar], ...]

    @property
    def name(self) -> str:
        """A name for a folder and a guest; a value such as `1,3-5` also adds a hash."""
        words = [self.kernel, *(["aa"] if self.control else [])]
        # A kernel may be called `stock-aa` or `stock-p.1`, but no name in lab.yaml has a +.
        text = "+".join([*words, *(f"{k}.{v}" for k, v in self.kernel_parameters)])
        return safe_name(text, is_unique=not any("+" in str(v) for _, v in self.kernel_parameters))

    def command_line(self) -> str:
        """The kernel parameters as text."""
        return parameters(self.kernel_parameters)


@dataclass(frozen=True, slots=True)
class Repetition:
    """One planned repetition of a cell, or a warm-up."""

    cell: Cell
    number: int
    warmup: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of one experiment: its cells, baseline, statistics, seed and observers.

    Observers that slow the kernel are not among them: they have a pass of their own.
    """

    experiment: Experiment
    statistics: Statistics
    baseline: str
    cells: tuple[Cell, ...]
    seed: int
    observers: tuple[Observer, ...] = ()

    def groups(self) -> tuple[BootGroup, ...]:
        """Return the guests of a block, in the order of their first cell."""
        return tuple(dict.fromkeys(cell.group for cell in self.cells))

    @property
    def first_repetitions(self) -> int:
        """The number of repetitions in the first block."""
        chosen = self.statistics.repetitions
        return FIRST if chosen == "auto" else chosen

    def block(
        self, number: int, ended: Collection[str] = (), repetitions: int | None = None
    ) -> tuple[Repetition, ...]:
        """Return the repetitions of a block (from 0) in order, without cells that have `ended`.

        `repetitions` of each cell are planned, if omitted as many as in the first block.
        Each guest is warmed up first, by its first cell of the block. Then each
        repetition measures every cell once, in a new random order derived from seed,
        experiment and block, so that drift of the host affects all cells alike.
        """
        # Not for secrets: a fixed generator makes the order reproducible.
        draw = random.Random(f"{self.seed}/{self.experiment.name}/{number}")  # noqa: S311
        orders: list[list[Cell]] = []
        for _ in range(repetitions or self.first_repetitions):
            order = list(self.cells)
            draw.shuffle(order)
            orders.append([cell for cell in order if cell.id not in ended])
        first: dict[BootGroup, Cell] = {}
        for cell in orders[0]:
            first.setdefault(cell.group, cell)
        warmups = [
            Repetition(cell, number, warmup=True)
            for number in range(self.statistics.warmup)
            for cell in first.values()
        ]
        measured = [
            Repetition(cell, number, warmup=False)
            for number, order in enumerate(orders)
            for cell in order
        ]
        return (*warmups, *measured)

    def expected_seconds(
        self, boot_seconds: float, repetition_seconds: float
    ) -> tuple[float, float]:
        """Return the expected time of the minimum and of the maximum number of blocks."""
        block = boot_seconds * len(self.groups()) + repetition_seconds * len(self.block(0))
        return block * self.statistics.blocks.min, block * self.statistics.blocks.max


def plan(lab: Lab, name: str, seed: int) -> Plan:
    """Return the plan of an experiment.

    The baseline gets one cell for each distinct setting of the matrix names that apply to
    it (workload parameters always apply, a tunable only if the kernel has it), and an A/A
    control for each of them. Every other kernel gets the whole matrix.
    """
    experiment = lab.experiments[name]
    baseline = experiment.baseline or experiment.kernels[0]
    cells: dict[str, Cell] = {}
    for kernel in dict.fromkeys((baseline, *experiment.kernels)):
        for control in (False, True) if kernel == baseline else (False,):
            for values in itertools.product(*experiment.matrix.values()):
                point = dict(zip(experiment.matrix, values, strict=True))
                cell = _cell(lab, experiment, kernel, control, point)
                cells.setdefault(cell.id, cell)
    return Plan(
        experiment=experiment,
        statistics=lab.resolve_statistics(experiment),
        baseline=baseline,
        cells=tuple(cells.values()),
        seed=seed,
        observers=tuple(one for one in lab.observers_of(experiment) if not one.disturbs),
    )


def _cell(
    lab: Lab, experiment: Experiment, kernel: str, control: bool, point: dict[str, Scalar]
) -> Cell:
    def applies(name: str) -> bool:
        tunable = lab.tunables.get(name)
        return tunable is None or tunable.applies_to(kernel)

    setting = {name: value for name, value in point.items() if applies(name)}
    chosen = {n: v for n, v in experiment.set.items() if applies(n)} | setting
    files = {n: v for n, v in chosen.items() if n in lab.tunables and lab.tunables[n].file}
    boot = {n: v for n, v in chosen.items() if n in lab.tunables and lab.tunables[n].parameter}
    workload = lab.workloads[experiment.workload]
    own = {n: v for n, v in chosen.items() if n not in lab.tunables}
    label = f"{kernel}+aa" if control else kernel
    return Cell(
        id="/".join([label, *(f"{n}={_in_id(v)}" for n, v in setting.items())]),
        kernel=kernel,
        control=control,
        setting=setting,
        tunables=files,
        kernel_parameters={str(lab.tunables[n].parameter): v for n, v in boot.items()},
        parameters=dict(workload.parameters) | own,
    )


def _in_id(value: Scalar) -> str:
    """Return a value as part of a cell's id, whose parts are separated by slashes."""
    return str(value).replace("%", "%25").replace("/", "%2F")
