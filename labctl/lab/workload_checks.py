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
    if found.sound(*path, "command"):
        try:
            words = shlex.split(workload.command)
        except ValueError as error:
            hint = "quote words as in a shell"
            found.add((*path, "command"), f"command cannot be split into words: {error}", hint)
        else:
            if not words:
                found.add((*path, "command"), "program is missing", "example: command: freebench")
    for name, value in workload.parameters.items():
        check_size(name, value, (*path, "parameters", name), found)
    for name, metric in workload.metrics.items():
        check_metric(name, metric, (*path, "metrics", name), found)
    for target in workload.files:
        if {".", ".."}.intersection(target.split("/")):
            hint = f"the path starts from the workload's folder: {target.rpartition('/')[2]}"
            found.add((*path, "files", target), "path contains . or ..", hint, at_key=True)
