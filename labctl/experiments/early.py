"""Checks before the first build: what would fail minutes later is reported now."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from labctl.arch import ARCHITECTURES, X86_64, Architecture
from labctl.errors import BuildError, ConfigError, HostError, Problem
from labctl.experiments.needs import Need, need_of, shortage
from labctl.experiments.plan import Plan
from labctl.guests import initramfs, scratch
from labctl.guests.placement import place
from labctl.host.facts import HostFacts
from labctl.lab.models import Lab, Workload
from labctl.lab.problems import nearest
from labctl.targets.roots import NEEDED
from labctl.transports import Outcome
from labctl.units import MIB, rough_size
from labctl.workloads.closure import Fault, closure
from labctl.workloads.collect import Kind
from labctl.workloads.collect import supply as supply_of
from labctl.workloads.roots import check_program
from labctl.workloads.supply import NOTHING, Supply, merged

_SECONDS = 60.0
_MUCH_BYTES = 64 * MIB


class Machine(Protocol):
    """The part of a target that the check of its commands uses."""

    name: str

    def run(self, command: str, *, timeout_seconds: float) -> Outcome:
        """Run a shell command."""
        ...


def check_memory(lab: Lab, plans: Sequence[Plan], facts: HostFacts) -> None:
    """Check that the guests of each experiment fit into the free memory and disk of the host.

    Raises:
        HostError: they do not.
        ConfigError: their disks do not fit on the host's disk.
    """
    for each in plans:
        check_room(lab, need_of(lab, each), facts, f"experiment {each.experiment.name}")


def check_room(lab: Lab, need: Need, facts: HostFacts, what: str) -> None:
    """Check that the guests of `what` fit; raises as `check_memory` does."""
    scratch.check_space(lab, need.topology, need.guests)
    nodes = place(need.guest, need.topology, facts).host_nodes
    lacking = shortage(need, facts, nodes)
    if lacking:
        raise HostError(
            f"{what} {lacking}",
            hint=f"reduce {need.topology.memory_keys}, stop other guests (`labctl down`), or "
            "select fewer kernels; `labctl doctor` suggests more",
        )


def check_commands(lab: Lab, plans: Sequence[Plan]) -> dict[str, Supply]:
    """Check the commands and files of the workloads for guests; return what each brings.

    A guest of virtme-ng has the files of the host, so the shared libraries are checked too.

    Raises:
        ConfigError: a command or a file does not exist, or cannot be brought into the guest;
            names the lines in lab.yaml.
        BuildError: a program of a workload does not compile.
        HostError: there is no busybox for the guests.
    """
    problems: list[Problem] = []
    supplies: dict[str, Supply] = {}
    for workload, arch in _workloads(lab, plans):
        supplies[workload.name], failed = _supply(lab, workload, arch, lab.defaults.launcher)
        problems += failed
        if not failed and workload.root is not None:
            problems += _not_in_root(lab, workload, arch, supplies[workload.name])
        elif failed or supplies[workload.name].has(_program(workload)):
            continue
        elif lab.defaults.launcher == "qemu":
            problems += _not_in_initramfs(lab, workload, arch)
        else:
            problems += _not_on_host(lab, workload)
    problems += _conflicts(lab, supplies)
    if problems:
        raise ConfigError(problems)
    return supplies


def check_sizes(
    lab: Lab, plans: Sequence[Plan], supplies: Mapping[str, Supply], warn: Callable[[str], None]
) -> None:
    """Check that the files of the workloads fit into the memory of the guests, where they live.

    Only guests of the QEMU launcher have the files of all workloads in their memory.

    Raises:
        ConfigError: they need more than half of a guest's memory.
    """
    sources = {one for one in merged(supplies).values() if isinstance(one, Path)}
    size = sum(one.stat().st_size for one in sources)
    if lab.defaults.launcher != "qemu" or size <= _MUCH_BYTES:
        return
    what = f"the files of the workloads take {rough_size(size)} of each guest's memory"
    need = min(
        (need_of(lab, each) for each in plans), key=lambda one: one.topology.boot_memory_bytes
    )
    if size * 2 > need.topology.boot_memory_bytes:
        largest = max(supplies, key=lambda name: supplies[name].size_bytes)
        what += f", of which guest {need.guest} has {rough_size(need.topology.boot_memory_bytes)}"
        hint = f"bring less, increase {need.topology.memory_keys}, or use `launcher: virtme-ng`"
        raise ConfigError([_problem(lab, lab.workloads[largest], what, hint)])
    warn(f"WARNING: {what}")


def _conflicts(lab: Lab, supplies: Mapping[str, Supply]) -> list[Problem]:
    """Return the absolute paths in the guest to which workloads bring different files."""
    problems = []
    owners: dict[str, str] = {}
    for name, supply in supplies.items():
        for path, source in supply.files.items():
            first = owners.setdefault(path, name)
            if supplies[first].files[path] != source:
                what = f"workload {first} brings another file to {path}"
                key = next((k for k in lab.workloads[name].files if k == path), None)
                where = ("command",) if key is None else ("files", key)
                hint = "use a relative path in the guest: each workload has its own folder"
                problems.append(_problem(lab, lab.workloads[name], what, hint, where))
    return problems


def supplies_of_lab(lab: Lab, arch: Architecture) -> dict[str, Supply]:
    """Return what the workloads of a lab bring into guests, without those with an error."""
    found = {}
    for name, one in lab.workloads.items():
        with contextlib.suppress(BuildError):
            found[name], problems = _supply(lab, one, arch, lab.defaults.launcher)
            if problems:
                del found[name]
    return found


def supplies_of_target(lab: Lab, plans: Sequence[Plan]) -> dict[str, Supply]:
    """Check the files and roots of the workloads for a target; return what each brings.

    Raises:
        ConfigError: a file cannot be brought, or a root has no such command; names its line in
            lab.yaml.
    """
    problems: list[Problem] = []
    supplies: dict[str, Supply] = {}
    for workload, arch in _workloads(lab, plans):
        supplies[workload.name], failed = _supply(lab, workload, arch, "target")
        problems += failed
        if not failed and workload.root is not None:
            problems += _not_in_root(lab, workload, arch, supplies[workload.name])
    if problems:
        raise ConfigError(problems)
    return supplies


def check_commands_of(
    machine: Machine, lab: Lab, plans: Sequence[Plan], supplies: Mapping[str, Supply]
) -> None:
    """Check that a target has the commands of the workloads and the interpreters of scripts.

    For a workload with a root it must have the programs that set it up.

    Raises:
        ConfigError: a program does not exist; names its line in lab.yaml.
        GuestError: the target does not respond.
    """
    problems = []
    for workload, _ in _workloads(lab, plans):
        supply, program = supplies[workload.name], _program(workload)
        is_there = supply.has(program) or program in initramfs.PROGRAMS
        needs = (*supply.interpreters, *(() if is_there else (program,)))
        for needed in needs if supply.root is None else NEEDED:
            script = f"command -v -- {shlex.quote(needed)} >/dev/null"
            if machine.run(script, timeout_seconds=_SECONDS).status != 0:
                what = f"{needed} not found on target {machine.name}"
                problems.append(_problem(lab, workload, what))
    if problems:
        raise ConfigError(problems)


def _workloads(lab: Lab, plans: Sequence[Plan]) -> list[tuple[Workload, Architecture]]:
    found: dict[str, tuple[Workload, Architecture]] = {}
    for each in plans:
        name, arch = each.experiment.workload, ARCHITECTURES[lab.kernels[each.baseline].arch]
        workload = found[name][0] if name in found else lab.workloads[name]
        found[name] = _with_programs(lab, workload, each, arch), arch
    return list(found.values())


def _with_programs(lab: Lab, workload: Workload, each: Plan, arch: Architecture) -> Workload:
    """Return a workload that also brings the programs of observers into a guest of QEMU.

    Other guests have those of the host, targets their own.
    """
    programs = [program for one in each.observers for program in one.programs]
    is_qemu = each.experiment.target is None and lab.defaults.launcher == "qemu"
    if not is_qemu or not programs:
        return workload
    files = dict(workload.files)
    for program in programs:
        found = shutil.which(program)
        if found is None or arch.is_foreign:
            raise HostError(
                f"observer {program} needs {program} of {arch.name} on this host",
                hint="install it (Debian: linux-perf), or remove the observer",
            )
        files[f"/usr/bin/{program}"] = found
    return workload.model_copy(update={"files": files})


def _supply(
    lab: Lab, workload: Workload, arch: Architecture, kind: Kind
) -> tuple[Supply, list[Problem]]:
    problems: list[Problem] = []
    if not workload.may_bring_files:
        return NOTHING, problems

    def report(key: tuple[str, ...], fault: Fault) -> None:
        problems.append(_problem(lab, workload, fault.what, fault.hint, key))

    known: frozenset[str] = frozenset()
    if kind == "qemu" and workload.root is None:
        names = initramfs.commands(arch)
        known = frozenset(f"{f}/{n}" for f in initramfs.COMMAND_FOLDERS for n in names)
    return supply_of(lab, workload, arch, kind, known, report), problems


def _program(workload: Workload) -> str:
    return workload.argv()[0]


def _not_in_initramfs(lab: Lab, workload: Workload, arch: Architecture) -> list[Problem]:
    program, known = _program(workload), initramfs.commands(arch)
    path = PurePosixPath(program)
    is_there = path.name in known and (
        "/" not in program or str(path.parent) in initramfs.COMMAND_FOLDERS
    )
    if is_there:
        return []
    hint = "guests have busybox, freebench and integrity"
    near = nearest(path.name, known)
    if near is not None:
        hint = f"did you mean {near}? {hint}"
    found = shutil.which(program)
    if found:
        hint += f"; `files: {{{path.name}: {found}}}` brings the program of the host"
    return [_problem(lab, workload, f"{program} not found in the guest", hint)]


def _not_in_root(lab: Lab, workload: Workload, arch: Architecture, supply: Supply) -> list[Problem]:
    assert supply.root is not None
    program = _program(workload)
    for needed in (*supply.interpreters, *(() if supply.has(program) else (program,))):
        try:
            check_program(supply.root, needed, arch)
        except Fault as fault:
            return [_problem(lab, workload, fault.what, fault.hint)]
    return []


def _not_on_host(lab: Lab, workload: Workload) -> list[Problem]:
    program = _program(workload)
    if program in initramfs.PROGRAMS:
        return []
    found = shutil.which(program)
    if found is None:
        what = f"{program} not found on the host, whose files the guest uses"
        return [_problem(lab, workload, what)]
    try:
        closure(Path(found), X86_64)
    except Fault as fault:
        return [_problem(lab, workload, fault.what, fault.hint)]
    return []


def _problem(
    lab: Lab,
    workload: Workload,
    what: str,
    hint: str | None = None,
    key: tuple[str, ...] = ("command",),
) -> Problem:
    return lab.problem(("workloads", workload.name, *key), what, hint)
