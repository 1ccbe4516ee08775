"""Checks before the first build: what would fail minutes later is reported now."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Protocol

from labctl import proc
from labctl.arch import ARCHITECTURES, Architecture
from labctl.errors import CommandError, ConfigError, HostError, Problem
from labctl.experiments.needs import need_of, shortage
from labctl.experiments.plan import Plan
from labctl.guests import initramfs
from labctl.guests.placement import place
from labctl.host.facts import HostFacts
from labctl.lab.models import Lab, Workload
from labctl.lab.problems import dotted, nearest
from labctl.transports import Outcome

_SECONDS = 60.0


class Machine(Protocol):
    """The part of a target that the check of its commands uses."""

    name: str

    def run(self, command: str, *, timeout_seconds: float) -> Outcome:
        """Run a shell command."""
        ...


def check_memory(lab: Lab, plans: Sequence[Plan], facts: HostFacts) -> None:
    """Check that the guests of each experiment fit into the free memory of the host.

    Raises:
        HostError: they do not.
    """
    for each in plans:
        need = need_of(lab, each)
        nodes = place(need.guest, need.topology, facts).host_nodes
        lacking = shortage(need, facts, nodes)
        if lacking:
            raise HostError(
                f"experiment {need.experiment} {lacking}",
                hint="reduce `memory_per_node:`, stop other guests (`labctl down`), or select "
                "fewer kernels; `labctl doctor` suggests more",
            )


def check_commands(lab: Lab, plans: Sequence[Plan]) -> None:
    """Check that the commands of the workloads exist in the guests.

    A guest of virtme-ng has the files of the host, so the shared libraries are checked too.

    Raises:
        ConfigError: commands do not exist; names their lines in lab.yaml.
        HostError: there is no busybox for the guests.
    """
    problems = []
    for workload, arch in _workloads(lab, plans):
        if lab.defaults.launcher == "qemu":
            problems += _not_in_initramfs(lab, workload, arch)
        else:
            problems += _not_on_host(lab, workload)
    if problems:
        raise ConfigError(problems)


def check_commands_of(machine: Machine, lab: Lab, plans: Sequence[Plan]) -> None:
    """Check that the commands of the workloads exist on a target.

    Raises:
        ConfigError: commands do not exist; names their lines in lab.yaml.
        GuestError: the target does not respond.
    """
    problems = []
    for workload, _ in _workloads(lab, plans):
        program = _program(workload)
        if program in initramfs.PROGRAMS:
            continue
        script = f"command -v -- {shlex.quote(program)} >/dev/null"
        if machine.run(script, timeout_seconds=_SECONDS).status != 0:
            problems.append(
                _problem(lab, workload, f"{program} not found on target {machine.name}")
            )
    if problems:
        raise ConfigError(problems)


def _workloads(lab: Lab, plans: Sequence[Plan]) -> list[tuple[Workload, Architecture]]:
    arches = {each.experiment.workload: lab.kernels[each.baseline].arch for each in plans}
    return [(lab.workloads[name], ARCHITECTURES[arch]) for name, arch in arches.items()]


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
    if shutil.which(program) or (lab.root / program).exists():
        hint += "; `launcher: virtme-ng` runs programs of the host by their absolute path"
    return [_problem(lab, workload, f"{program} not found in the guest", hint)]


def _not_on_host(lab: Lab, workload: Workload) -> list[Problem]:
    program = _program(workload)
    if program in initramfs.PROGRAMS:
        return []
    # The working directory of a guest is its root.
    if "/" in program and not program.startswith("/"):
        hint = "use an absolute path: the guest starts commands in /"
        return [_problem(lab, workload, f"{program} is a relative path", hint)]
    found = shutil.which(program)
    if found is None:
        what = f"{program} not found on the host, whose files the guest uses"
        return [_problem(lab, workload, what)]
    missing = _missing_libraries(found)
    if missing:
        what = f"{program}: shared libraries not found: {', '.join(missing)}"
        return [_problem(lab, workload, what, f"`ldd {found}` lists what it needs")]
    return []


def _missing_libraries(program: str) -> list[str]:
    try:
        done = proc.run(
            ["ldd", program], env={"LC_ALL": "C"}, timeout_seconds=_SECONDS, check=False
        )
    except (CommandError, HostError):
        return []  # ldd tells too little about static programs, scripts and other formats
    lines = done.text.splitlines()
    return [line.split()[0] for line in lines if line.rstrip().endswith("=> not found")]


def _problem(lab: Lab, workload: Workload, what: str, hint: str | None = None) -> Problem:
    key = ("workloads", workload.name, "command")
    mark = lab.marks.get(key)
    line, column = (mark.line, mark.column) if mark else (0, 0)
    return Problem(os.fspath(lab.path), line, column, dotted(key), what, hint)
