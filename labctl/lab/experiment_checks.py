"""Check an experiment of a lab.yaml against its kernels, workload and tunables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from labctl.lab.compared import EffectError, better_of, compared, metrics_of, resolved
from labctl.lab.document import KeyPath
from labctl.lab.entries import ExperimentEntry, LabFile
from labctl.lab.problems import Findings
from labctl.lab.statistics import Blocks, Statistics
from labctl.lab.workload_entry import WorkloadEntry
from labctl.units import Scalar, quote

_SHARE = re.compile(r"[1-9][0-9]?%|100%")


def check_known(noun: str, name: str, path: KeyPath, names: Sequence[str], found: Findings) -> bool:
    """Record a name that is not defined; return whether it is, or cannot be checked."""
    if not found.sound_section(f"{noun}s"):
        return True
    if name not in names:
        found.unknown(noun, name, path, names)
    return name in names


def check_disjoint(fixed: Mapping[str, Scalar], path: KeyPath, found: Findings) -> None:
    """Record the keys that are in both `set` and `matrix`."""
    for key in fixed:
        if (*path, "matrix", key) in found.document.keys:
            hint = "`set` is for constant values, `matrix` for lists: remove one of the two"
            found.add(
                (*path, "set", key), "conflicts with the same key in `matrix`", hint, at_key=True
            )


def check_unique(values: Sequence[Scalar], path: KeyPath, found: Findings) -> None:
    """Record values that occur more than once in a list."""
    seen: Counter[str] = Counter()
    for index, value in enumerate(values):
        seen[repr(value)] += 1
        if seen[repr(value)] > 1:
            what = f"duplicate value {quote(str(value))}"
            found.add((*path, index), what, "remove one of them")


def check_size(name: str, value: Scalar, path: KeyPath, found: Findings) -> None:
    """Record a parameter named like a size whose value is no size and no share: 50%."""
    if name != "size" and not name.endswith("_size"):
        return
    if isinstance(value, str) and _SHARE.fullmatch(value):
        return
    if not isinstance(value, int):
        found.add(path, f"expected a size, got {quote(str(value))}", "example: 1536MiB or 3GiB")
    elif value <= 0:
        found.add(path, f"expected more than 0, got {value}", "example: 1536MiB or 3GiB")


def check_blocks(blocks: Blocks, path: KeyPath, found: Findings) -> None:
    """Record a minimum of blocks above the maximum."""
    if blocks.min <= blocks.max:
        return
    key = "min" if (*path, "min") in found.document.keys else "max"
    what = f"minimum of {blocks.min} blocks exceeds maximum of {blocks.max}"
    found.add((*path, key), what, "the defaults are 8 and 30")


class ExperimentCheck:
    """The checks of one experiment."""

    def __init__(
        self, file: LabFile, found: Findings, name: str, experiment: ExperimentEntry
    ) -> None:
        self.file, self.found, self.experiment = file, found, experiment
        self.path: KeyPath = ("experiments", name)
        self.settings: dict[str, tuple[Scalar, ...]] = {
            **{key: (value,) for key, value in experiment.set.items()},
            **experiment.matrix,
        }

    def run(self) -> None:
        """Record the errors of the experiment."""
        experiment, found, path = self.experiment, self.found, self.path
        kernels = self._kernels()
        workloads = found.names("workloads")
        workload_known = found.sound(*path, "workload") and check_known(
            "workload", experiment.workload, (*path, "workload"), workloads, found
        )
        if experiment.guest is not None:
            check_known("guest", experiment.guest, (*path, "guest"), found.names("guests"), found)
        if experiment.target is not None:
            targets = found.names("targets")
            check_known("target", experiment.target, (*path, "target"), targets, found)
        matrix = (*path, "matrix")
        if not experiment.matrix and matrix in found.document.keys and found.sound(*matrix):
            hint = "example: matrix: {max_active: [1, 2, 4]}; or remove the key"
            found.add(matrix, "must not be empty", hint)
        check_disjoint(experiment.set, path, found)
        for where in ("set", "matrix"):
            for key in getattr(experiment, where):
                self._setting(key, (*path, where, key), workload_known, kernels)
        for key, values in experiment.matrix.items():
            check_unique(values, (*path, "matrix", key), found)
        check_unique(experiment.observe or (), (*path, "observe"), found)
        self._metric()
        self._statistics()

    def _kernels(self) -> list[str] | None:
        """Return the kernels of the experiment, None if any is invalid."""
        experiment, found, path = self.experiment, self.found, self.path
        names, sound = found.names("kernels"), found.sound_section("kernels")
        for index, kernel in enumerate(experiment.kernels):
            sound &= check_known("kernel", kernel, (*path, "kernels", index), names, found)
        check_unique(experiment.kernels, (*path, "kernels"), found)
        if experiment.baseline is not None:
            baseline = (*path, "baseline")
            sound &= check_known("kernel", experiment.baseline, baseline, names, found)
        return [*experiment.kernels, experiment.baseline or ""] if sound else None

    def _setting(
        self, key: str, path: KeyPath, workload_known: bool, kernels: list[str] | None
    ) -> None:
        found = self.found
        tunables = found.names("tunables")
        parameters = found.parameters.get(self.experiment.workload, ())
        if key in tunables:
            self._has_kernel(key, path, kernels)
        elif key in parameters:
            values = self.settings[key] if path[-2] == "matrix" else (self.experiment.set[key],)
            for index, value in enumerate(values):
                inner = (*path, index) if path[-2] == "matrix" else path
                check_size(key, value, inner, found)
        elif workload_known and found.settings_known(self.experiment.workload):
            noun = "tunable or parameter of its workload"
            found.unknown(noun, key, path, [*tunables, *parameters], at_key=True)

    def _has_kernel(self, key: str, path: KeyPath, kernels: list[str] | None) -> None:
        tunable = self.file.tunables.get(key)
        sound = self.found.sound("tunables", key) and self.found.sound(*self.path, "kernels")
        if tunable is None or kernels is None or not sound:
            return
        if not any(tunable.applies_to(kernel) for kernel in kernels):
            only = ", ".join(tunable.kernels or ())
            what = "none of this experiment's kernels has this tunable"
            hint = f"add a kernel that has it ({only}) to `kernels:`, or remove the key"
            self.found.add(path, what, hint, at_key=True)

    def _metric(self) -> None:
        experiment, found = self.experiment, self.found
        workload = self.file.workloads.get(experiment.workload)
        of_workload = ("workloads", experiment.workload)
        sound = all(
            found.sound(*place, key)
            for place in (self.path, of_workload)
            for key in ("workload", "command", "metric", "metrics", "better", "scale")
        )
        if workload is None or not sound:
            return
        self._several()
        for index, metric in enumerate(metrics_of(experiment, workload)):
            if better_of(experiment, workload, metric) is not None:
                continue
            own = experiment.metric is not None and experiment.metric != workload.metric
            where: KeyPath = (*(self.path if own else of_workload), "metric")
            if experiment.metrics is not None:
                where = (*self.path, "metrics", index)
            if metric in workload.metrics:
                where = (*of_workload, "metrics", metric)
            found.add(
                where,
                f"direction of metric {quote(metric)} is unknown: is less or more of it better?",
                "add `better: lower` or `better: higher`; the default, lower, is for times only",
            )
        self._effects(workload)

    def _several(self) -> None:
        """Check `metrics`: no metric twice, and nothing that holds for one of them only."""
        experiment, path = self.experiment, self.path
        check_unique(experiment.metrics or (), (*path, "metrics"), self.found)
        for key in ("metric", "better", "scale"):
            if experiment.metrics is not None and getattr(experiment, key) is not None:
                hint = "set it for each metric, under `metrics:` of the workload"
                hint = "remove one of the two" if key == "metric" else hint
                self.found.add((*path, key), "conflicts with `metrics`", hint, at_key=True)

    def _effects(self, workload: WorkloadEntry) -> None:
        found, statistics = self.found, (*self.path, "statistics")
        if not found.sound("statistics") or not found.sound(*statistics):
            return
        try:
            resolved(self.experiment, workload, self.file.statistics)
            compared(self.experiment, workload, self.file.statistics)
        except EffectError as error:
            place = ("workloads", self.experiment.workload) if error.is_of_workload else self.path
            if found.sound(*place, *error.path):
                found.add((*place, *error.path), str(error), error.hint, at_key=not error.path)

    def _statistics(self) -> None:
        path = (*self.path, "statistics")
        override = self.experiment.statistics
        if not override.blocks.model_fields_set or not self.found.sound(*path, "blocks"):
            return
        base = self.file.statistics if self.found.sound("statistics") else Statistics()
        check_blocks(override.over(base).blocks, (*path, "blocks"), self.found)
