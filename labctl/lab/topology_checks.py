"""Check a guest's topology against the limits of QEMU's machines and of Linux."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from labctl.arch import ARCHITECTURES, ArchName
from labctl.lab.arch_checks import arch_of_kernel
from labctl.lab.document import KeyPath
from labctl.lab.entries import LabFile
from labctl.lab.problems import Findings
from labctl.lab.topology import Topology
from labctl.lab.types import LOCAL_DISTANCE


@dataclass(frozen=True, slots=True)
class Mistake:
    """An unsupported property of a topology; `path` is relative to the guest."""

    path: KeyPath
    what: str
    hint: str


def check_guests(file: LabFile, default_guest: str, found: Findings) -> None:
    """Record guests that QEMU would reject, or whose distances Linux would ignore."""
    for name, guest in file.guests.items():
        for mistake in mistakes(guest, _arches(file, name, default_guest), file.defaults.accel):
            path = ("guests", name, *mistake.path)
            if all(found.sound("guests", name, key) for key in ("nodes", mistake.path[0])):
                found.add(path, mistake.what, mistake.hint)


def mistakes(guest: Topology, arches: Collection[ArchName], accel: str) -> Iterator[Mistake]:
    """Yield the unsupported properties of a topology on these architectures."""
    yield from _vcpus(guest, arches, accel)
    yield from _distances(guest)


def _vcpus(guest: Topology, arches: Collection[ArchName], accel: str) -> Iterator[Mistake]:
    key = "cpus_per_node" if guest.cpus_per_node > 1 else "nodes"
    most, arch = min(
        ((ARCHITECTURES[arch].most_vcpus, arch) for arch in arches), default=(None, "")
    )
    if most is not None and guest.vcpus > most:
        asked = f"{guest.nodes} x {guest.cpus_per_node} CPUs are {guest.vcpus}"
        each = most // guest.nodes
        hint = f"cpus_per_node: {each}" if each else f"nodes: {most}"
        yield Mistake((key,), f"{asked}, but QEMU's {arch} machine has at most {most}", hint)
    elif accel != "kvm":
        highest, limit = _highest_apic_id(guest), _apic_limit(arches)
        if limit is not None and highest > limit:
            what = (
                f"{guest.nodes} nodes of {guest.cpus_per_node} CPUs need APIC ID {highest}, but"
                f" QEMU without KVM has at most {limit}"
            )
            fewer = 2 ** (guest.cpus_per_node.bit_length() - 1)
            hint = f"cpus_per_node: {fewer} (IDs of a node are rounded up to a power of two)"
            yield Mistake((key,), what, hint)


def _apic_limit(arches: Collection[ArchName]) -> int | None:
    limits = (ARCHITECTURES[arch].highest_apic_id for arch in arches)
    return min((limit for limit in limits if limit is not None), default=None)


def _highest_apic_id(guest: Topology) -> int:
    """Return the APIC ID of the last vCPU: the socket's number, then the CPU's within it."""
    bits = (guest.cpus_per_node - 1).bit_length()
    return (guest.nodes - 1 << bits) + guest.cpus_per_node - 1


def _distances(guest: Topology) -> Iterator[Mistake]:
    hint = f"Linux ignores all distances if a remote one is {LOCAL_DISTANCE}"
    for source, target in _remote_pairs(guest):
        value = guest.distances.distance(source, target)
        if value <= LOCAL_DISTANCE:
            where: KeyPath = ("remote",)
            if guest.distances.matrix is not None:
                where = ("matrix", source, target)
            what = f"distance to another node: expected at least {LOCAL_DISTANCE + 1}, got {value}"
            yield Mistake(("distances", *where), what, hint)


def _remote_pairs(guest: Topology) -> Iterator[tuple[int, int]]:
    matrix = guest.distances.matrix
    if matrix is None:
        yield from [(0, 1)] if guest.nodes > 1 else []
    elif len(matrix) == guest.nodes and all(len(row) == guest.nodes for row in matrix):
        nodes = range(guest.nodes)
        yield from ((i, j) for i in nodes for j in nodes if i != j)


def _arches(file: LabFile, guest: str, default_guest: str) -> set[ArchName]:
    """Return the architectures of the kernels that may boot on a guest."""
    kernels: set[str] = set()
    if guest in (default_guest, file.verify.guest):  # `up` and `verify` take any kernel
        kernels.update(file.kernels)
    for one in file.experiments.values():
        if one.target is None and (one.guest or default_guest) == guest:
            kernels.update(one.kernels, [one.baseline] if one.baseline else [])
    known = (arch_of_kernel(file, name) for name in kernels if name in file.kernels)
    return {arch for arch in known if arch is not None} or {file.defaults.arch}
