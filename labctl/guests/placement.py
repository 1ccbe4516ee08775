"""Choose the host CPUs and NUMA nodes for a guest's vCPUs and memory. Pure.

All guests of an experiment get the same host CPUs, since one of them runs at a time.
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
    """The placement of a guest on the host.

    `vcpus` is the host CPU of each vCPU, empty if not pinned; `emulator` the CPUs of
    QEMU's other threads, empty if not pinned; `host_nodes` the host node for each guest
    node's memory, empty if not bound.
    """

    vcpus: tuple[int, ...] = ()
    emulator: tuple[int, ...] = ()
    host_nodes: tuple[int, ...] = ()

    def unpinned(self) -> Placement:
        """Return the placement without pinning, for guests that run at the same time."""
        return Placement(host_nodes=self.host_nodes)


ANYWHERE = Placement()


def document(topology: Topology, placement: Placement, facts: HostFacts) -> dict[str, Any]:
    """Return the JSON of a placement for run.json, with the vCPUs that share a core."""
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
    """Return the placement of the guest named `guest`.

    `pin: auto` pins each vCPU to a separate core on the host node of its memory, and
    QEMU's other threads to the remaining CPUs. Without enough cores nothing is pinned: two
    vCPUs on one core while another is idle are worse than no pinning.

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
    return tuple(chosen[i % len(chosen)] for i in range(topology.node_count))


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
    """Return a different CPU for each vCPU, empty if there are not enough."""
    homes: list[int | None] = []  # of each vCPU
    for number, node in enumerate(topology.each):
        homes += [host_nodes[number] if host_nodes else None] * node.cpus
    given: dict[int | None, Iterator[int]] = {}
    for home, needed in Counter(homes).items():
        own = [cpu for cpu in facts.cpus if home is None or cpu.node == home]
        # One thread of every core first; the first core last, since the host uses it most.
        own.sort(key=lambda cpu: (_thread(cpu), -cpu.number))
        if len(own) < needed:
            return ()
        given[home] = iter(sorted(cpu.number for cpu in own[:needed]))
    return tuple(next(given[home]) for home in homes)


def _thread(cpu: HostCpu) -> int:
    """Return the index of a CPU among the threads of its core."""
    return cpu.core.index(cpu.number)


def _left_over(vcpus: Sequence[int], facts: HostFacts) -> tuple[int, ...]:
    """Return the CPUs without a vCPU, preferring cores without one; empty without vCPUs."""
    if not vcpus:
        return ()
    rest = [cpu for cpu in facts.cpus if cpu.number not in vcpus]
    apart = [cpu for cpu in rest if not set(cpu.core) & set(vcpus)]
    return tuple(cpu.number for cpu in apart or rest)
