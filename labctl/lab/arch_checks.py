"""Check the architectures of a lab.yaml's kernels against its defaults and experiments."""

from __future__ import annotations

from collections.abc import Mapping

from labctl.arch import ARCHITECTURES, ArchName
from labctl.lab.document import KeyPath
from labctl.lab.entries import KernelEntry, LabFile
from labctl.lab.kernels import lineage
from labctl.lab.problems import Findings


def check_arch(file: LabFile, found: Findings) -> None:
    """Record conflicts of architectures in kernels, defaults and experiments."""
    for name, entry in file.kernels.items():
        path: KeyPath = ("kernels", name, "arch")
        if entry.arch is not None and entry.base is not None and found.sound(*path):
            hint = "a kernel has the architecture of its base: remove one of the two"
            found.add(path, "conflicts with `base:`", hint, at_key=True)
    if not found.sound("defaults"):
        return
    arches = {
        name: arch_of_kernel(file, name) for name in file.kernels if found.sound("kernels", name)
    }
    _defaults(file, arches, found)
    for name, experiment in file.experiments.items():
        path = ("experiments", name, "kernels")
        kernels = [*experiment.kernels, *([experiment.baseline] if experiment.baseline else [])]
        known = {kernel: arches[kernel] for kernel in kernels if arches.get(kernel)}
        if len(set(known.values())) > 1 and found.sound(*path):
            each = ", ".join(f"{kernel} is {arch}" for kernel, arch in known.items())
            hint = "times of different architectures cannot be compared: write two experiments"
            found.add(path, f"kernels have different architectures: {each}", hint)


def arch_of_kernel(file: LabFile, name: str) -> ArchName | None:
    """Return the architecture of a kernel, None if one of its bases is invalid."""
    entries: list[KernelEntry] | None = lineage(file, name)
    return None if entries is None else entries[0].arch or file.defaults.arch


def _defaults(file: LabFile, arches: Mapping[str, ArchName | None], found: Findings) -> None:
    """Record values of `defaults:` that an architecture does not support, each once."""
    first: dict[ArchName, str] = {}
    for name, arch in arches.items():
        if arch is not None:
            first.setdefault(arch, name)
    for arch, name in first.items():
        for key, each in ARCHITECTURES[arch].unsupported.items():
            if getattr(file.defaults, key) == each.value:
                what = (
                    f"{each.value} is not supported on {arch}, the architecture of kernel {name}: "
                    f"{each.reason}"
                )
                found.add(("defaults", key), what, each.replacement)
