"""Check a guest's topology against the limits of QEMU's machines and of Linux."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from labctl.arch import ARCHITECTURES, ArchName
from labctl.lab import memory_checks, qemu_arguments
from labctl.lab.arch_checks import arch_of_kernel
from labctl.lab.document import KeyPath
from labctl.lab.entries import Defaults, LabFile
from labctl.lab.mistake import Mistake
from labctl.lab.problems import Findings
from labctl.lab.topology import PACKAGES, PER_NODE, Topology
from labctl.lab.types import LOCAL_DISTANCE


def check_guests(file: LabFile, default_guest: str, found: Findings) -> None:
    """Record guests that QEMU would reject, or whose distances Linux would ignore."""
    for name, guest in file.guests.items():
        sound = {key for key in Topology.model_fields if found.sound("guests", name, key)}
        arches = _arches(file, name, default_guest)
        for mistake in mistakes(guest, arches, file.defaults):
            path = ("guests", name, *mistake.path)
            if sound >= {"nodes", mistake.path[0]}:
                found.add(path, mistake.what, mistake.hint, at_key=mistake.at_key)


def mistakes(
    guest: Topology, arches: Collection[ArchName], defaults: Defaults
) -> Iterator[Mistake]:
    """Yield the unsupported properties of a topology on these architectures."""
    if guest.is_listed:
        yield from _listed(guest)
    if guest.vcpus:
        wrong = [*_packages(guest)]
        yield from wrong or _vcpus(guest, arches, defaults.accel)
    yield from _distances(guest)
    yield from memory_checks.mistakes(guest, arches, defaults.launcher)
    if guest.icount:
        yield from _icount(defaults)
    for index, what, hint in qemu_arguments.mistakes(guest.qemu, defaults.transport):
        yield Mistake(("qemu", index), what, hint)


def _icount(defaults: Defaults) -> Iterator[Mistake]:
    for key, value, needed in (
        ("launcher", defaults.launcher, "qemu"),
        ("accel", defaults.accel, "tcg"),
    ):
        if value != needed:
            hint = f"use `defaults: {{{key}: {needed}}}`, or remove the key"
            yield Mistake(("icount",), f"not supported with `{key}: {value}`", hint, at_key=True)


def _listed(guest: Topology) -> Iterator[Mistake]:
    for key in PER_NODE:
        if key in guest.model_fields_set:
            hint = "a list has the vCPUs and the memory of each node: remove the key"
            yield Mistake((key,), "conflicts with a list of `nodes:`", hint, at_key=True)
    both = "cpus: 0 is a node with memory only, memory: 0 a node without memory"
    for number, node in enumerate(guest.each):
        if not node.cpus and not node.every_byte:
            yield Mistake(("nodes", number), "node has neither vCPUs nor memory", both, at_key=True)
    if not any(node.cpus and node.memory for node in guest.each):
        what = "expected at least one node with both vCPUs and memory"
        yield Mistake(("nodes",), what, "Linux boots on such a node")
    last = max((number for number, node in enumerate(guest.each) if node.cpus), default=0)
    for number, node in enumerate(guest.each[:last]):
        if not node.cpus and node.every_byte:
            hint = f"Linux numbers nodes with vCPUs first: move it after node {last}"
            what = "node without vCPUs comes before a node with vCPUs"
            yield Mistake(("nodes", number, "cpus"), what, hint)


def _packages(guest: Topology) -> Iterator[Mistake]:
    given = [key for key in PACKAGES if getattr(guest, key)]
    if not given:
        return
    sockets, cores, threads = packages = guest.packages
    socket = cores * threads
    split = next((n for n, node in enumerate(guest.each) if node.cpus % socket), None)
    if sockets * socket != guest.vcpus:
        what = f"{packages} are {sockets * socket} CPUs, but the nodes have {guest.vcpus}"
        hint = "sockets x cores x threads must be the CPUs of all nodes; one of them may be omitted"
        yield Mistake((given[0],), what, hint)
    elif split is not None:
        what = f"a socket of {socket} CPUs is on two nodes: node {split} has"
        hint = f"the CPUs of each node must be a multiple of cores x threads, {socket}"
        yield Mistake((given[0],), f"{what} {guest.each[split].cpus}", hint)


def _vcpus(guest: Topology, arches: Collection[ArchName], accel: str) -> Iterator[Mistake]:
    key = "nodes" if guest.is_listed or guest.cpus_per_node == 1 else "cpus_per_node"
    nodes, packages = guest.node_count, guest.packages
    cores = packages.cores * packages.threads
    most, arch = min(
        ((ARCHITECTURES[arch].most_vcpus, arch) for arch in arches), default=(None, "")
    )
    if most is not None and guest.vcpus > most:
        asked = f"{nodes} x {guest.cpus_per_node} CPUs are {guest.vcpus}"
        each = most // nodes
        hint = f"cpus_per_node: {each}" if each else f"nodes: {most}"
        if guest.is_listed:
            asked, hint = f"the nodes have {guest.vcpus} CPUs", f"at most {most} CPUs in all"
        yield Mistake((key,), f"{asked}, but QEMU's {arch} machine has at most {most}", hint)
    elif accel != "kvm":
        highest, limit = _highest_apic_id(guest), _apic_limit(arches)
        if limit is not None and highest > limit:
            what = (
                f"{packages.sockets} sockets of {cores} CPUs need APIC ID {highest}, but"
                f" QEMU without KVM has at most {limit}"
            )
            fewer = 2 ** (cores.bit_length() - 1)
            hint = f"cpus_per_node: {fewer} (IDs of a socket are rounded up to a power of two)"
            if guest.is_listed or guest.has_packages:
                hint = "use fewer CPUs (IDs of a socket are rounded up to a power of two)"
            yield Mistake((key,), what, hint)


def _apic_limit(arches: Collection[ArchName]) -> int | None:
    limits = (ARCHITECTURES[arch].highest_apic_id for arch in arches)
    return min((limit for limit in limits if limit is not None), default=None)


def _highest_apic_id(guest: Topology) -> int:
    """Return the APIC ID of the last vCPU: the numbers of its socket, core and thread."""
    highest = 0
    for count in guest.packages:
        highest = (highest << (count - 1).bit_length()) + count - 1
    return highest


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
        yield from [(0, 1)] if guest.node_count > 1 else []
    elif {len(matrix), *map(len, matrix)} == {guest.node_count}:
        nodes = range(guest.node_count)
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
