"""What the parts of a lab.yaml say about each other: names, settings, counts, memory."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from labctl import units
from labctl.lab_arch_checks import check_arch
from labctl.lab_command_line_checks import check_command_lines
from labctl.lab_entries import (
    ExperimentEntry,
    LabFile,
    TargetEntry,
    TunableEntry,
    VerifyEntry,
    WorkloadEntry,
    better_of,
)
from labctl.lab_files import absolute, check_fragments, check_kernels
from labctl.lab_findings import Findings
from labctl.lab_guest_checks import check_guests
from labctl.lab_statistics import Blocks, Statistics
from labctl.lab_topology import Topology
from labctl.lab_types import LOCAL_DISTANCE
from labctl.lab_yaml import KeyPath
from labctl.units import Scalar, quote


def check(file: LabFile, found: Findings, root: Path) -> None:
    """Record every mistake that needs more than one key to be seen."""
    for name, guest in file.guests.items():
        _distances(guest, ("guests", name), found)
        _memory_kind(guest, ("guests", name), found, file.defaults.launcher)
    _default_guest(file, found)
    check_guests(file, default_guest(file), found)
    if found.sound_section("kernels"):
        check_kernels(file, found, root)
        check_arch(file, found)
    check_command_lines(file, found)
    for name, target in file.targets.items():
        _target(target, ("targets", name), found, root)
    for name, tunable in file.tunables.items():
        _tunable(tunable, ("tunables", name), found)
    for name, workload in file.workloads.items():
        _workload(workload, ("workloads", name), found)
    if found.sound("statistics"):
        _blocks(file.statistics.blocks, ("statistics", "blocks"), found)
    for name, experiment in file.experiments.items():
        _Experiment(file, found, name, experiment).check()
    _verify(file.verify, found, root)


def _verify(verify: VerifyEntry, found: Findings, root: Path) -> None:
    path: KeyPath = ("verify",)
    if not found.sound_section("verify"):
        return
    if verify.guest is not None:
        _known("guest", verify.guest, (*path, "guest"), found.names("guests"), found)
    for name, variant in verify.variants.items():
        check_fragments(variant.kconfig, (*path, "variants", name, "kconfig"), found, root)
    for name, fragments in verify.compile.items():
        check_fragments(fragments, (*path, "compile", name), found, root)
    _in_both(verify.set, path, found)
    for where in ("set", "matrix"):
        for name in getattr(verify, where):
            if found.sound_section("tunables") and name not in found.names("tunables"):
                known = found.names("tunables")
                found.unknown("tunable", name, (*path, where, name), known, at_key=True)
    for name, values in verify.matrix.items():
        _twice(values, (*path, "matrix", name), found)


def _in_both(fixed: Mapping[str, Scalar], path: KeyPath, found: Findings) -> None:
    for key in fixed:
        if (*path, "matrix", key) in found.document.keys:
            hint = "`set` is for what stays the same, `matrix` for what changes: keep one"
            found.add((*path, "set", key), "stands in `matrix` too", hint, at_key=True)


def _twice(values: Sequence[Scalar], path: KeyPath, found: Findings) -> None:
    seen: Counter[str] = Counter()
    for index, value in enumerate(values):
        seen[repr(value)] += 1
        if seen[repr(value)] > 1:
            what = f"{quote(str(value))} stands twice in this list"
            found.add((*path, index), what, "remove one of them")


def _distances(guest: Topology, path: KeyPath, found: Findings) -> None:
    path = (*path, "distances")
    matrix, nodes = guest.distances.matrix, guest.nodes
    if matrix is None or not found.sound(*path) or not found.sound(*path[:-1], "nodes"):
        return
    if "remote" in guest.distances.model_fields_set:
        hint = "the matrix holds all distances: remove one of the two"
        found.add((*path, "remote"), "stands beside `matrix:`", hint, at_key=True)
    path = (*path, "matrix")
    if len(matrix) != nodes or any(len(row) != nodes for row in matrix):
        what = f"must have {nodes} rows of {nodes} distances, as the guest has {nodes} nodes"
        found.add(path, what, "one row a node, one column a node")
        return
    for i in range(nodes):
        if matrix[i][i] != LOCAL_DISTANCE:
            what = f"the distance from node {i} to itself must be {LOCAL_DISTANCE}"
            found.add((*path, i, i), f"{what}, and is {matrix[i][i]}")


def _target(target: TargetEntry, path: KeyPath, found: Findings, root: Path) -> None:
    for key, text in (("key", target.key), ("initrd", target.initrd)):
        if text is not None and found.sound(*path, key) and not absolute(root, text).is_file():
            hint = f"paths start from the folder of the lab file, {root}"
            found.add((*path, key), f"the file {quote(text)} does not exist", hint)
    if target.host_key is not None and len(target.host_key.split()) < 2:
        hint = "the kind and the key, as `ssh-keyscan` prints them: ssh-ed25519 AAAA..."
        found.add((*path, "host_key"), "is no host key", hint)


def _memory_kind(guest: Topology, path: KeyPath, found: Findings, launcher: str) -> None:
    for key in ("prealloc", "hugepages", "host_nodes"):
        if launcher == "virtme-ng" and getattr(guest, key) and found.sound(*path, key):
            what = "vng makes a guest's memory itself, and not as this asks for"
            found.add((*path, key), what, "`launcher: qemu`, or remove the key", at_key=True)
    size, memory = guest.hugepages, guest.memory_per_node
    sound = found.sound(*path, "hugepages") and found.sound(*path, "memory_per_node")
    if size and sound and memory % size:
        what = (
            f"{units.format_size(memory)} of a node are not a multiple of {units.format_size(size)}"
        )
        up = -(-memory // size) * size
        found.add((*path, "hugepages"), what, f"memory_per_node: {units.format_size(up)}")


def _default_guest(file: LabFile, found: Findings) -> None:
    names = found.names("guests")
    if not found.sound("defaults") or not found.sound_section("guests"):
        return
    if "guest" in file.defaults.model_fields_set:
        _known("guest", file.defaults.guest, ("defaults", "guest"), names, found)
    elif file.defaults.guest not in names and len(names) > 1:
        hint = f"defaults: {{guest: {names[0]}}}"
        found.note(
            ("guests",), "it is not said which is used", hint, found.document.key_mark(("guests",))
        )


def default_guest(file: LabFile) -> str:
    """Return the name of the guest that is used where no other is named."""
    if file.defaults.guest in file.guests or not file.guests:
        return file.defaults.guest
    return next(iter(file.guests))


def _known(noun: str, name: str, path: KeyPath, names: Sequence[str], found: Findings) -> bool:
    if not found.sound_section(f"{noun}s"):
        return True
    if name not in names:
        found.unknown(noun, name, path, names)
    return name in names


def _tunable(tunable: TunableEntry, path: KeyPath, found: Findings) -> None:
    if found.sound(*path, "file") and found.sound(*path, "parameter"):
        if tunable.file is None and tunable.parameter is None:
            hint = "give it `file:` (in the guest), or `parameter:` (of the kernel's command line)"
            mark = found.document.key_mark(path)
            found.note(path, "has neither `file:` nor `parameter:`", hint, mark)
        elif tunable.file is not None and tunable.parameter is not None:
            hint = "a tunable is one thing: remove one of the two"
            found.add((*path, "parameter"), "stands beside `file:`", hint, at_key=True)
    for index, kernel in enumerate(tunable.kernels or ()):
        _known("kernel", kernel, (*path, "kernels", index), found.names("kernels"), found)
    users = [name for name, names in found.parameters.items() if path[-1] in names]
    if users:
        what = f"is also a parameter of the workload {' and '.join(users)}"
        hint = "rename one, or a setting of that name could mean both"
        found.note(path, what, hint, found.document.key_mark(path))


def _workload(workload: WorkloadEntry, path: KeyPath, found: Findings) -> None:
    if found.sound(*path, "command"):
        try:
            words = shlex.split(workload.command)
        except ValueError as error:
            hint = "quote it as in a shell"
            found.add((*path, "command"), f"cannot be split into words: {error}", hint)
        else:
            if not words:
                found.add((*path, "command"), "names no program", "command: freebench")
    for name, value in workload.parameters.items():
        _size(name, value, (*path, "parameters", name), found)


def _size(name: str, value: Scalar, path: KeyPath, found: Findings) -> None:
    if name != "size" and not name.endswith("_size"):
        return
    if not isinstance(value, int):
        found.add(path, f"{quote(str(value))} is not a size", "write it like 1536MiB or 3GiB")
    elif value <= 0:
        found.add(path, f"must be more than 0, and is {value}", "write it like 1536MiB or 3GiB")


def _blocks(blocks: Blocks, path: KeyPath, found: Findings) -> None:
    if blocks.min <= blocks.max:
        return
    key = "min" if (*path, "min") in found.document.keys else "max"
    what = f"at least {blocks.min} blocks and at most {blocks.max} cannot both hold"
    found.add((*path, key), what, "`min` is at most `max`; the defaults are 8 and 30")


class _Experiment:
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

    def check(self) -> None:
        experiment, found, path = self.experiment, self.found, self.path
        kernels = self._kernels()
        workloads = found.names("workloads")
        workload_known = found.sound(*path, "workload") and _known(
            "workload", experiment.workload, (*path, "workload"), workloads, found
        )
        if experiment.guest is not None:
            _known("guest", experiment.guest, (*path, "guest"), found.names("guests"), found)
        if experiment.target is not None:
            _known("target", experiment.target, (*path, "target"), found.names("targets"), found)
        matrix = (*path, "matrix")
        if not experiment.matrix and matrix in found.document.keys and found.sound(*matrix):
            hint = "matrix: {max_active: [1, 2, 4]}, or remove the key"
            found.add(matrix, "must not be empty", hint)
        _in_both(experiment.set, path, found)
        for where in ("set", "matrix"):
            for key in getattr(experiment, where):
                self._setting(key, (*path, where, key), workload_known, kernels)
        for key, values in experiment.matrix.items():
            _twice(values, (*path, "matrix", key), found)
        self._metric()
        self._statistics()

    def _kernels(self) -> list[str] | None:
        """Return the kernels of the experiment, None if they are not all sound."""
        experiment, found, path = self.experiment, self.found, self.path
        names, sound = found.names("kernels"), found.sound_section("kernels")
        for index, kernel in enumerate(experiment.kernels):
            sound &= _known("kernel", kernel, (*path, "kernels", index), names, found)
        _twice(experiment.kernels, (*path, "kernels"), found)
        if experiment.baseline is not None:
            baseline = (*path, "baseline")
            sound &= _known("kernel", experiment.baseline, baseline, names, found)
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
                _size(key, value, inner, found)
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
            hint = f"it belongs to {only}: add that to `kernels:`, or remove the key"
            self.found.add(path, what, hint, at_key=True)

    def _metric(self) -> None:
        experiment, found = self.experiment, self.found
        workload = self.file.workloads.get(experiment.workload)
        of_workload = ("workloads", experiment.workload)
        sound = all(
            found.sound(*place, key)
            for place in (self.path, of_workload)
            for key in ("workload", "command", "metric", "better")
        )
        if workload is None or not sound or better_of(experiment, workload) is not None:
            return
        own = experiment.metric is not None and experiment.metric != workload.metric
        metric = experiment.metric or workload.metric
        found.add(
            (*(self.path if own else of_workload), "metric"),
            f"nothing says whether less or more {quote(metric)} is better",
            "add `better: lower` or `better: higher` beside it; only a time is known to be lower",
        )

    def _statistics(self) -> None:
        path = (*self.path, "statistics")
        override = self.experiment.statistics
        if not override.blocks.model_fields_set or not self.found.sound(*path, "blocks"):
            return
        base = self.file.statistics if self.found.sound("statistics") else Statistics()
        _blocks(override.over(base).blocks, (*path, "blocks"), self.found)


def check_memory(
    guests: Mapping[str, Topology],
    experiments: Mapping[str, ExperimentEntry],
    default: str,
    memory_bytes: int,
    found: Findings,
) -> None:
    """Record each guest that cannot be there as often as an experiment needs it.

    All kernels of an experiment are up at the same time, and the baseline twice.
    """
    known = set(found.names("kernels"))
    for name, guest in guests.items():
        path: KeyPath = ("guests", name, "memory_per_node")
        if not (found.sound(*path) and found.sound("guests", name, "nodes")):
            continue
        need, user = 1, ""
        for title, one in experiments.items():
            kernels = {*one.kernels, one.baseline or one.kernels[0]} & known
            if one.target is None and (one.guest or default) == name and len(kernels) + 1 > need:
                need, user = len(kernels) + 1, title
        total = need * guest.memory_bytes
        if total > memory_bytes:
            node = units.format_size(guest.memory_per_node)
            guests_need = "guest needs" if need == 1 else "guests together need"
            what = (
                f"{need} {guests_need} {gib(total)} ({guest.nodes} x {node} each),"
                f" and this host has {gib(memory_bytes)}"
            )
            why = f"the experiment {user} has {need - 1} kernels up at once and the baseline twice"
            most = memory_bytes // (need * guest.nodes) // units.MIB
            fits = f"at most {most}MiB fits here"
            found.add(path, what, f"{why}; {fits}" if user else fits)


def gib(value: int) -> str:
    """Return bytes as GiB with one digit, as memory is talked about."""
    return f"{value / units.GIB:.1f} GiB"
