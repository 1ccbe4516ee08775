"""Where on the host a guest's vCPUs and memory go. Pure: a topology and a host in, a value out.

All guests of an experiment get the same host CPUs: one of them runs at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labctl.errors import UserError
from labctl.lab.topology import Topology

if TYPE_CHECKING:
    from labctl.host.facts import HostCpu, HostFacts


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a guest is on the host.

    `vcpus` has the host CPU of each vCPU, empty if they are not pinned; `emulator`
    the CPUs of QEMU's other threads, empty if they go where they like; `host_nodes`
    the host node of each guest node's memory, empty if it is not bound.
    """

    vcpus: tuple[int, ...] = ()
    emulator: tuple[int, ...] = ()
    host_nodes: tuple[int, ...] = ()

    def unpinned(self) -> Placement:
        """Return the same with nothing pinned: for guests that run side by side."""
        return Placement(host_nodes=self.host_nodes)


ANYWHERE = Placement()


def document(topology: Topology, placement: Placement, facts: HostFacts) -> dict[str, Any]:
    """Return a placement as a run's document tells it, with how many vCPUs share a core."""
    used = len(set(placement.vcpus)) or facts.cores
    return {
        "vcpus": topology.vcpus,
        "cores": used,
        "overcommitted": topology.vcpus > used,
        "pinned": list(placement.vcpus),
        "emulator": list(placement.emulator),
        "host_nodes": list(placement.host_nodes),
    }


def place(guest: str, topology: Topology, facts: HostFacts) -> Placement:
    """Return where a guest of that name goes.

    `pin: auto` gives every vCPU a core of its own, on the host node of its memory,
    and QEMU's other threads what is left; where there are not enough it pins
    nothing, for two vCPUs on one core while another idles are worse than none pinned.

    Raises:
        UserError: lab.yaml names a CPU or a node that this host does not have.
    """
    host_nodes = _host_nodes(guest, topology, facts)
    if topology.pin is None:
        return Placement(host_nodes=host_nodes)
    if topology.pin == "auto":
        vcpus = _own_cores(topology, host_nodes, facts)
    else:
        usable = [cpu.number for cpu in facts.cpus]
        _known(guest, "pin", "CPU", topology.pin, usable)
        vcpus = tuple(topology.pin[i % len(topology.pin)] for i in range(topology.vcpus))
    return Placement(vcpus, _left_over(vcpus, facts), host_nodes)


def _host_nodes(guest: str, topology: Topology, facts: HostFacts) -> tuple[int, ...]:
    chosen: Sequence[int]
    if topology.host_nodes is None:
        return ()
    if topology.host_nodes == "auto":
        chosen = sorted({cpu.node for cpu in facts.cpus})
        if len(facts.nodes) < 2:
            return ()
    else:
        chosen = topology.host_nodes
        _known(guest, "host_nodes", "node", chosen, [node.number for node in facts.nodes])
    return tuple(chosen[i % len(chosen)] for i in range(topology.nodes))


def _known(guest: str, key: str, noun: str, asked: Iterable[int], known: Sequence[int]) -> None:
    unknown = [number for number in asked if number not in known]
    if unknown:
        raise UserError(
            f"host {noun} {', '.join(map(str, unknown))} is not available"
            f"{' to labctl' if noun == 'CPU' else ''}",
            where=f"guests.{guest}.{key}",
            hint=f"available: {', '.join(map(str, known)) or 'none'}",
        )


def _own_cores(topology: Topology, host_nodes: Sequence[int], facts: HostFacts) -> tuple[int, ...]:
    """Return a CPU for each vCPU, none of them twice, or nothing if there are not enough."""
    homes: Sequence[int | None] = host_nodes or [None] * topology.nodes
    given: dict[int | None, Iterator[int]] = {}
    for home, count in Counter(homes).items():
        needed = count * topology.cpus_per_node
        own = [cpu for cpu in facts.cpus if home is None or cpu.node == home]
        # One thread of every core first, and the first core last: it serves the host.
        own.sort(key=lambda cpu: (_thread(cpu), -cpu.number))
        if len(own) < needed:
            return ()
        given[home] = iter(sorted(cpu.number for cpu in own[:needed]))
    return tuple(next(given[home]) for home in homes for _ in range(topology.cpus_per_node))


def _thread(cpu: HostCpu) -> int:
    """Return which thread of its core a CPU is."""
    return cpu.core.index(cpu.number)


def _left_over(vcpus: Sequence[int], facts: HostFacts) -> tuple[int, ...]:
    """Return the CPUs that no vCPU is on, those first whose core none is on; none if none is."""
    if not vcpus:
        return ()
    rest = [cpu for cpu in facts.cpus if cpu.number not in vcpus]
    apart = [cpu for cpu in rest if not set(cpu.core) & set(vcpus)]
    return tuple(cpu.number for cpu in apart or rest)
