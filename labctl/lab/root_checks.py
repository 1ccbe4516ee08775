"""Check `root:` of workloads: its form, and the files beside it. Pure."""

from __future__ import annotations

import re

from labctl.lab.document import KeyPath
from labctl.lab.entries import LabFile
from labctl.lab.problems import Findings
from labctl.lab.workload_entry import ROOT_DEBIAN


def check_roots(file: LabFile, found: Findings) -> None:
    """Record errors of roots."""
    for name, one in file.workloads.items():
        if one.root is not None:
            _root(file, ("workloads", name), name, found)


def _root(file: LabFile, path: KeyPath, name: str, found: Findings) -> None:
    workload = file.workloads[name]
    if not found.sound(*path, "root"):
        return
    text = workload.root or ""
    if text.startswith("debian:") and not re.fullmatch(ROOT_DEBIAN, text):
        what = f"expected debian:SUITE or debian:SUITE@MIRROR, got {text!r}"
        found.add((*path, "root"), what, "example: root: debian:bookworm")
    for target in workload.files:
        if target.startswith("/") and found.sound(*path, "files", target):
            what = "an absolute path conflicts with `root:`, whose files are not changed"
            hint = f"use a relative path: {target.rpartition('/')[2]}"
            found.add((*path, "files", target), what, hint, at_key=True)
