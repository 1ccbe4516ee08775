"""Check a guest's HMAT, hotplugged memory, swap and disks against what can be had. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from labctl.arch import ARCHITECTURES, ArchName
from labctl.lab import memory_speed
from labctl.lab.document import KeyPath
from labctl.lab.memory_speed import BANDWIDTH, LATENCY
from labctl.lab.mistake import Mistake
from labctl.lab.topology import Topology


def mistakes(guest: Topology, arches: Collection[ArchName], launcher: str) -> Iterator[Mistake]:
    """Yield what the launcher, an architecture, QEMU or Linux does not support."""
    unsupported = [*_unsupported(guest, arches, launcher)]
    yield from unsupported
    if not unsupported:
        yield from _speed(guest)
        yield from _hotplug(guest)


def _unsupported(guest: Topology, arches: Collection[ArchName], launcher: str) -> Iterator[Mistake]:
    speed: list[KeyPath] = [(key,) for key in (LATENCY, BANDWIDTH) if getattr(guest, key)]
    hotplug = [("nodes", number, "hotplug") for number, n in enumerate(guest.each) if n.hotplug]
    storage: list[KeyPath] = [(key,) for key in ("swap", "disks") if getattr(guest, key)]
    without_acpi = sorted(arch for arch in arches if not ARCHITECTURES[arch].has_acpi)
    for path in (*speed, *hotplug, *storage):
        if launcher != "qemu":
            what = f"not supported with `launcher: {launcher}`"
            yield Mistake(path, what, "use `launcher: qemu`, or remove the key", at_key=True)
        elif without_acpi and path not in storage:
            arch = without_acpi[0]
            hint = f"QEMU reports it by ACPI, and {arch} guests have a device tree: remove the key"
            yield Mistake(path, f"not supported on {arch}", hint, at_key=True)


def _speed(guest: Topology) -> Iterator[Mistake]:
    given = [(LATENCY, guest.latency), (BANDWIDTH, guest.bandwidth)]
    # Linux rejects the whole table if it has a node without memory (hmat_parse_proximity_domain).
    empty = next((number for number, node in enumerate(guest.each) if not node.every_byte), None)
    for noun, values in given:
        if values is None:
            continue
        if empty is not None:
            hint = f"Linux ignores HMAT if a node has no memory: give node {empty} memory"
            yield Mistake((noun,), f"node {empty} has no memory", hint, at_key=True)
            continue
        initiators, nodes = len(guest.initiators), guest.node_count
        for place, what, hint in memory_speed.mistakes(noun, values, initiators, nodes):
            yield Mistake((noun, *place), what, hint)


def _hotplug(guest: Topology) -> Iterator[Mistake]:
    # Linux numbers the other nodes from tables that only know memory at boot.
    for number, node in enumerate(guest.each[:-1]):
        if not node.cpus and not node.memory and node.hotplug:
            what = "node with hotplugged memory only is not the last node"
            hint = f"move it after node {guest.node_count - 1}, or give it memory at boot"
            yield Mistake(("nodes", number, "hotplug"), what, hint, at_key=True)
