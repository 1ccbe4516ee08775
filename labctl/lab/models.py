"""A valid lab: what lab.yaml means once names and paths are resolved. Pure.

The classes of the file as written are in `lab.entries`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from labctl import observers, units
from labctl.arch import X86_64, ArchName
from labctl.errors import ConfigError, Problem
from labctl.lab.compared import Compared, compared, resolved
from labctl.lab.document import KeyPath, Mark
from labctl.lab.entries import (
    Defaults,
    ExperimentEntry,
    TunableEntry,
    VariantEntry,
    VerifyEntry,
)
from labctl.lab.metrics import Better
from labctl.lab.problems import dotted
from labctl.lab.state import StateFolder
from labctl.lab.statistics import Statistics
from labctl.lab.topology import Topology
from labctl.lab.types import Model
from labctl.lab.workload_entry import WorkloadEntry
from labctl.observers.observer import Observer
from labctl.units import Scalar


class Kernel(Model):
    """A kernel with the values of its bases filled in and absolute paths.

    `source` is as in lab.yaml, but with an absolute path, and for git with a revision.
    `series` is a place as `labctl.series.place` parses it, with an absolute path: that of the
    kernel or else of its nearest base with one. `below` has those of the bases before it. `config`
    is an absolute path, `running` or a target of make; if it is set, `kconfig` starts with
    guest.config. `make` has make's variables, also those of the compiler and the local
    version.
    """

    name: str
    source: str
    base: str | None = None
    series: str | None = None
    below: tuple[str, ...] = ()
    kconfig: tuple[Path, ...] = ()
    config: str | None = None
    make: dict[str, str] = Field({})
    command_line: str = ""
    arch: ArchName = X86_64.name

    @property
    def stack(self) -> tuple[str, ...]:
        """All series in the order in which they are applied."""
        return self.below if self.series is None else (*self.below, self.series)


class Target(Model):
    """A target; `key` and `initrd` are absolute paths, `boot_timeout` is in seconds."""

    name: str
    kind: Literal["ssh"]
    host: str
    port: int | None
    user: str
    key: Path | None
    host_key: str | None
    initrd: Path | None
    command_line: str
    boot_timeout: float


class Tunable(TunableEntry):
    """A tunable with its name."""

    name: str


class Workload(WorkloadEntry):
    """A workload with its name; `command` is the script if there is one."""

    name: str
    command: str

    @property
    def may_bring_files(self) -> bool:
        """Whether it has files of its own, or a command that may be a program of the host."""
        own = self.files or self.build or self.make is not None or self.packages or self.root
        return bool(own) or (self.script is None and "/" in self.argv()[0])

    def argv(self, parameters: Mapping[str, Scalar] | None = None) -> list[str]:
        """Return the argument vector; `parameters` override the workload's own."""
        words = ["/bin/sh", "-ec", self.script, "sh"] if self.script else shlex.split(self.command)
        for name, value in {**self.parameters, **(parameters or {})}.items():
            words += [f"--{name.replace('_', '-')}", units.text(value)]
        return words


class Experiment(ExperimentEntry):
    """An experiment with its name; `kernels` always includes the baseline."""

    name: str
    baseline: str

    @model_validator(mode="before")
    @classmethod
    def _with_baseline(cls, data: Any) -> Any:  # noqa: ANN401
        if not isinstance(data, dict) or not data.get("kernels"):
            return data
        kernels = tuple(data["kernels"])
        baseline = data.get("baseline") or kernels[0]
        kernels = kernels if baseline in kernels else (baseline, *kernels)
        return {**data, "baseline": baseline, "kernels": kernels}


class Variant(VariantEntry):
    """A variant with its name; `fragments` are the absolute paths of `kconfig`."""

    name: str
    fragments: tuple[Path, ...] = ()


class Verify(Model):
    """What `labctl verify` and `labctl series check` do; sizes are in bytes."""

    guest: str | None = None
    variants: tuple[Variant, ...] = (Variant(name="as-is"),)
    set: dict[str, Scalar] = Field({})
    matrix: dict[str, tuple[Scalar, ...]] = Field({})
    compile: dict[str, tuple[Path, ...]] = Field({})
    held_back: int = VerifyEntry().held_back
    held_back_defaults: int | None = None


class Lab(Model):
    """A valid lab.

    `root` is the folder of lab.yaml, which relative paths start from; `state` is the folder
    for builds, guests and runs. Both are absolute. `marks` has the place of each key.
    """

    path: Path
    root: Path
    state: Path
    defaults: Defaults
    guests: dict[str, Topology]
    targets: dict[str, Target] = Field({})
    kernels: dict[str, Kernel]
    tunables: dict[str, Tunable]
    workloads: dict[str, Workload]
    experiments: dict[str, Experiment]
    statistics: Statistics
    scheduler: str | None = None
    verify: Verify = Verify()
    marks: dict[KeyPath, Mark] = Field({}, repr=False)

    def problem(self, path: KeyPath, what: str, hint: str | None = None) -> Problem:
        """Return an error at a key, with its place in lab.yaml."""
        mark = self.marks.get(path)
        line, column = (mark.line, mark.column) if mark else (0, 0)
        return Problem(str(self.path), line, column, dotted(path), what, hint)

    @property
    def has_roots(self) -> bool:
        """Whether a workload has a root of its own, for which kernels need more options."""
        return any(workload.root is not None for workload in self.workloads.values())

    @property
    def state_folder(self) -> StateFolder:
        """The paths in the state folder."""
        return StateFolder(self.state)

    def resolve_statistics(self, experiment: Experiment | str) -> Statistics:
        """Return an experiment's statistics: the lab's with the experiment's overrides."""
        if isinstance(experiment, str):
            experiment = self.experiments[experiment]
        return resolved(experiment, self.workloads[experiment.workload], self.statistics)

    def base_with(self, kernel: Kernel, stack: tuple[str, ...]) -> str | None:
        """Return a kernel's nearest base with exactly these series, None if it has none."""
        while kernel.base is not None:
            kernel = self.kernels[kernel.base]
            if kernel.stack == stack:
                return kernel.name
        return None

    def guest_of(self, experiment: Experiment | str) -> str:
        """Return the name of the guest that an experiment runs on."""
        if isinstance(experiment, str):
            experiment = self.experiments[experiment]
        return experiment.guest or self.defaults.guest

    def topologies(self, experiments: Iterable[str] | None = None) -> dict[str, list[Topology]]:
        """Return the topologies that each kernel boots with; of all experiments by default."""
        found: dict[str, list[Topology]] = {}
        for name in self.experiments if experiments is None else experiments:
            one = self.experiments[name]
            for kernel in () if one.target is not None else one.kernels:
                found.setdefault(kernel, []).append(self.guests[self.guest_of(one)])
        return found

    def observers_of(self, experiment: Experiment | str) -> tuple[Observer, ...]:
        """Return the observers of an experiment."""
        if isinstance(experiment, str):
            experiment = self.experiments[experiment]
        own = experiment.observe
        return observers.chosen(self.defaults.observe if own is None else own)

    def all_compared(self, experiment: Experiment | str) -> tuple[Compared, ...]:
        """Return the metrics of an experiment, with direction and scale; the first decides."""
        if isinstance(experiment, str):
            experiment = self.experiments[experiment]
        return compared(experiment, self.workloads[experiment.workload], self.statistics)

    def compared(self, experiment: Experiment | str) -> Compared:
        """Return the metric of an experiment that decides."""
        return self.all_compared(experiment)[0]

    def metric_of(self, experiment: Experiment | str) -> str:
        """Return the metric of an experiment that decides."""
        return self.compared(experiment).name

    def better_of(self, experiment: Experiment | str) -> Better:
        """Return whether less or more of the metric that decides is better."""
        return self.compared(experiment).better

    def require_ratio(self, experiment: str, what: str) -> None:
        """Check that an experiment compares ratios, the only scale of `what`.

        Raises:
            ConfigError: it compares differences.
        """
        found = self.compared(experiment)
        if found.scale == "difference":
            message = f"{what} compares ratios, but {found.name} has `scale: difference`"
            hint = "select an experiment with `scale: ratio`; `labctl run` takes both"
            raise ConfigError([self.problem(self._scale_key(experiment), message, hint)])

    def _scale_key(self, experiment: str) -> KeyPath:
        """Return the key that defines the scale of the metric that decides."""
        found, metric = self.experiments[experiment], self.metric_of(experiment)
        if found.scale is not None:
            return ("experiments", experiment, "scale")
        workload = self.workloads[found.workload]
        entry = workload.metrics.get(metric)
        own = ("metrics", metric) if entry is not None and entry.scale is not None else ()
        return ("workloads", workload.name, *own, "scale")
