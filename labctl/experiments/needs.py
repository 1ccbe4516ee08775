"""The host memory that experiments need at the same time. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labctl.experiments.plan import Plan, plan
from labctl.lab.models import Lab
from labctl.lab.topology import Topology
from labctl.units import format_size, rough_size

if TYPE_CHECKING:
    from labctl.host.facts import HostFacts


_QEMU_THREADS = 8


@dataclass(frozen=True, slots=True)
class Need:
    """Number and topology of the guests of an experiment that run at the same time."""

    experiment: str
    guest: str
    guests: int
    topology: Topology

    @property
    def processes(self) -> int:
        """The processes and threads of the guests: of each vCPU, and of QEMU itself."""
        return self.guests * (self.topology.vcpus + _QEMU_THREADS)

    @property
    def memory_bytes(self) -> int:
        """The total memory of the guests."""
        return self.guests * self.topology.memory_bytes


def need_of(lab: Lab, planned: Plan) -> Need:
    """Return the guests of a planned experiment: its kernels and the A/A control."""
    guest = lab.guest_of(planned.experiment)
    return Need(planned.experiment.name, guest, len(planned.groups()), lab.guests[guest])


def needs_of(lab: Lab) -> list[Need]:
    """Return the guests of each experiment of a lab that runs in guests."""
    in_guests = (name for name, one in lab.experiments.items() if one.target is None)
    return [need_of(lab, plan(lab, name, seed=0)) for name in in_guests]


def shortage(need: Need, facts: HostFacts, host_nodes: Sequence[int]) -> str:
    """Return what is missing as "needs X, but only Y are free", or an empty text.

    `host_nodes` has the host node for each guest node's memory, empty if not bound.
    """
    processes, memory = facts.limits.processes, facts.limits.memory
    if processes is not None and need.processes > processes.left:
        return (
            f"needs {need.processes} processes and threads for its {need.guests} guests, but only "
            f"{int(processes.left)} are left of the {int(processes.most)} of {processes.file}"
        )
    size = need.topology.hugepages
    free = facts.hugepages.get(size, 0) * size if size else facts.available_bytes
    if need.memory_bytes > free:
        needed = f"needs {_amount(need.memory_bytes, size)} for its {need.guests} guests"
        is_limited = memory is not None and not size and memory.left <= free
        below = f" below the limit of {memory.file}" if memory and is_limited else ""
        return f"{needed}, but only {_amount(free, size)} are free{below}"
    of_node = {
        node.number: node.hugepages.get(size, 0) * size if size else node.available_bytes
        for node in facts.nodes
    }
    for node, bound in _on_nodes(need, host_nodes).items():
        if bound > of_node.get(node, 0):
            there = f"only {_amount(of_node.get(node, 0), size)} are free there"
            return f"needs {_amount(bound, size)} of host node {node}, but {there}"
    return ""


def _on_nodes(need: Need, host_nodes: Sequence[int]) -> Mapping[int, int]:
    found: Counter[int] = Counter()
    for host_node, node in zip(host_nodes, need.topology.each, strict=False):
        found[host_node] += need.guests * node.every_byte
    return found


def _amount(size_bytes: int, page_bytes: int | None) -> str:
    if page_bytes:
        return f"{size_bytes // page_bytes} pages of {format_size(page_bytes)}"
    return rough_size(size_bytes)
