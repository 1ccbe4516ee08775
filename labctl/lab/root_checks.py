"""Check `root:` of workloads: the guests and targets that cannot have one. Pure."""

from __future__ import annotations

import re

from labctl.lab.document import KeyPath
from labctl.lab.entries import LabFile
from labctl.lab.problems import Findings
from labctl.lab.workload_entry import ROOT_DEBIAN


def check_roots(file: LabFile, found: Findings) -> None:
    """Record errors of roots, and of the experiments whose target cannot have them."""
    with_root = [name for name, one in file.workloads.items() if one.root is not None]
    for name in with_root:
        _root(file, ("workloads", name), name, found)
    for name, experiment in file.experiments.items():
        path: KeyPath = ("experiments", name, "target")
        if experiment.target is not None and experiment.workload in with_root:
            what = f"workload {experiment.workload} has `root:`, which targets do not support"
            found.add(path, what, "measure it in guests: remove `target:`", at_key=True)


def _root(file: LabFile, path: KeyPath, name: str, found: Findings) -> None:
    workload = file.workloads[name]
    if not found.sound(*path, "root") or not found.sound("defaults"):
        return
    if file.defaults.launcher != "qemu":
        what = f"not supported with `launcher: {file.defaults.launcher}`"
        found.add((*path, "root"), what, "use `launcher: qemu`, or remove the key", at_key=True)
    text = workload.root or ""
    if text.startswith("debian:") and not re.fullmatch(ROOT_DEBIAN, text):
        what = f"expected debian:SUITE or debian:SUITE@MIRROR, got {text!r}"
        found.add((*path, "root"), what, "example: root: debian:bookworm")
    for target in workload.files:
        if target.startswith("/") and found.sound(*path, "files", target):
            what = "an absolute path conflicts with `root:`, whose files are not changed"
            hint = f"use a relative path: {target.rpartition('/')[2]}"
            found.add((*path, "files", target), what, hint, at_key=True)
