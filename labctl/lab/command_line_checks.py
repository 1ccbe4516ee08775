"""Check the parts of a lab.yaml that go on a kernel's command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labctl.lab.command_line import line_fault, value_fault
from labctl.lab.document import KeyPath
from labctl.lab.entries import LabFile
from labctl.lab.problems import Findings
from labctl.units import Scalar


def check_command_lines(file: LabFile, found: Findings) -> None:
    """Record command lines that Linux would misread, and invalid values of parameters."""
    for path, line in _lines(file):
        fault = line_fault(line)
        if fault is not None and found.sound(*path):
            found.add(path, *fault)
    for path, name, value in _values(file):
        tunable = file.tunables.get(name)
        fault = value_fault(value) if tunable is not None and tunable.parameter else None
        if fault is not None and found.sound(*path):
            found.add(path, *fault)


def _lines(file: LabFile) -> Iterator[tuple[KeyPath, str]]:
    for name, kernel in file.kernels.items():
        if kernel.command_line is not None:
            yield ("kernels", name, "command_line"), kernel.command_line
    for name, target in file.targets.items():
        yield ("targets", name, "command_line"), target.command_line
    for name, variant in file.verify.variants.items():
        yield ("verify", "variants", name, "command_line"), variant.command_line


def _values(file: LabFile) -> Iterator[tuple[KeyPath, str, Scalar]]:
    for title, experiment in file.experiments.items():
        yield from _settings(("experiments", title), experiment.set, experiment.matrix)
    yield from _settings(("verify",), file.verify.set, file.verify.matrix)


def _settings(
    path: KeyPath, fixed: Mapping[str, Scalar], matrix: Mapping[str, Sequence[Scalar]]
) -> Iterator[tuple[KeyPath, str, Scalar]]:
    for name, value in fixed.items():
        yield (*path, "set", name), name, value
    for name, values in matrix.items():
        for index, value in enumerate(values):
            yield (*path, "matrix", name, index), name, value
