"""Check a workload of lab.yaml: its command, metrics and files. Pure."""

from __future__ import annotations

import shlex

from labctl.lab.document import KeyPath
from labctl.lab.experiment_checks import check_size
from labctl.lab.metric_entry import check_metric
from labctl.lab.problems import Findings
from labctl.lab.workload_entry import WorkloadEntry


def check_workload(workload: WorkloadEntry, path: KeyPath, found: Findings) -> None:
    """Record the errors of a workload."""
    _command(workload, path, found)
    _flags(workload, path, found)
    for name, value in workload.parameters.items():
        check_size(name, value, (*path, "parameters", name), found)
    for name, metric in workload.metrics.items():
        check_metric(name, metric, (*path, "metrics", name), found)
    for target in workload.files:
        if {".", ".."}.intersection(target.split("/")):
            hint = f"the path starts from the workload's folder: {target.rpartition('/')[2]}"
            found.add((*path, "files", target), "path contains . or ..", hint, at_key=True)


def _flags(workload: WorkloadEntry, path: KeyPath, found: Findings) -> None:
    try:
        shlex.split(workload.build.flags if workload.build is not None else "")
    except ValueError as error:
        found.add((*path, "build", "flags"), f"flags cannot be split into words: {error}")


def _command(workload: WorkloadEntry, path: KeyPath, found: Findings) -> None:
    command, script = workload.command, workload.script
    if command is None:
        if script is None and workload.build is None and found.sound(*path):
            hint = "example: command: freebench"
            mark = found.document.key_mark(path)
            found.note(
                path, "expected `use:`, `command:`, `script:` or `build:`, got none", hint, mark
            )
        return
    if script is not None:
        hint = "remove one of the two"
        found.add((*path, "script"), "conflicts with `command:`", hint, at_key=True)
    if not found.sound(*path, "command"):
        return
    try:
        words = shlex.split(command)
    except ValueError as error:
        hint = "quote words as in a shell"
        found.add((*path, "command"), f"command cannot be split into words: {error}", hint)
        return
    if not words:
        found.add((*path, "command"), "program is missing", "example: command: freebench")
