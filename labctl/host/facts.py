"""Host facts from /proc and /sys: CPUs, NUMA nodes, memory, hugepages, governors.

Both are read below a root folder, so that a test can provide a fake host.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from labctl.host import procfs
from labctl.host.cgroup import NO_LIMITS, Limits, read_limits

_NODES = "sys/devices/system/node"
_CPUS = "sys/devices/system/cpu"
_HUGEPAGES = "sys/kernel/mm/hugepages"


@dataclass(frozen=True, slots=True)
class HostCpu:
    """A CPU that this process may use; CPUs with the same `core` are its threads."""

    number: int
    node: int
    core: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HostNode:
    """A NUMA node of the host; `hugepages` maps a size in bytes to the number of free pages.

    `available_bytes` is free memory plus page cache.
    """

    number: int
    available_bytes: int
    hugepages: dict[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """Facts of the host.

    `cpu_flags` are from /proc/cpuinfo; `nested` is the parameter of the KVM module, empty
    without the module; `hugepages` maps a size in bytes to the number of free pages;
    `governors` are those of all CPUs, empty if the host does not provide them. The memory
    and the nodes are those that `limits`, the control groups of this process, allow.
    """

    cpus: tuple[HostCpu, ...]
    nodes: tuple[HostNode, ...]
    memory_bytes: int
    available_bytes: int
    cpu_flags: frozenset[str]
    nested: str
    hugepages: dict[int, int]
    governors: frozenset[str]
    limits: Limits = NO_LIMITS

    @property
    def cores(self) -> int:
        """Number of CPUs that this process may keep busy all the time."""
        return self.limits.whole_cpus(len(self.cpus))


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory that this process may use, and what of it is available without swapping.

    `limited_by` is the file of the control group that limits it, empty if none does.
    """

    total_bytes: int
    available_bytes: int
    limited_by: str = ""


def read_memory(root: Path = Path("/")) -> Memory:
    """Return the memory of the host, or of it what the control groups may use."""
    limits = read_limits(root)
    return _memory(root, limits, _nodes(root, limits.allowed_nodes))


def _memory(root: Path, limits: Limits, nodes: Collection[HostNode]) -> Memory:
    meminfo = procfs.read(root / "proc/meminfo")
    total = procfs.size_bytes(meminfo, "MemTotal")
    room = [procfs.size_bytes(meminfo, "MemAvailable", total)]
    room += [sum(node.available_bytes for node in nodes)] if limits.nodes else []
    if limits.memory is None or limits.memory.most >= total:
        return Memory(total, min(room))
    left = int(limits.memory.left)
    return Memory(int(limits.memory.most), min(left, *room), limits.memory.file)


def read_facts(root: Path = Path("/"), usable: Collection[int] | None = None) -> HostFacts:
    """Return the facts found below `root`; missing files count as empty.

    `usable` are the CPUs to use, by default the affinity of this process.
    """
    allowed = os.sched_getaffinity(0) if usable is None else usable
    flags = re.search(r"^flags\s*:(.*)", procfs.read(root / "proc/cpuinfo"), re.MULTILINE)
    limits = read_limits(root)
    nodes = _nodes(root, limits.allowed_nodes)
    memory = _memory(root, limits, nodes)
    modules = (root / f"sys/module/{name}/parameters/nested" for name in ("kvm_intel", "kvm_amd"))
    return HostFacts(
        cpus=_cpus(root, allowed),
        nodes=nodes,
        memory_bytes=memory.total_bytes,
        available_bytes=memory.available_bytes,
        cpu_flags=frozenset(flags[1].split()) if flags else frozenset(),
        nested=next(filter(None, map(procfs.read, modules)), ""),
        hugepages=_hugepages(root / _HUGEPAGES),
        governors=frozenset(
            procfs.read(path) for path in (root / _CPUS).glob("cpu[0-9]*/cpufreq/scaling_governor")
        ),
        limits=limits,
    )


def _cpus(root: Path, allowed: Collection[int]) -> tuple[HostCpu, ...]:
    node_of = {
        cpu: int(path.name.removeprefix("node"))
        for path in (root / _NODES).glob("node[0-9]*")
        for cpu in procfs.numbers(procfs.read(path / "cpulist"))
    }
    found = []
    for cpu in sorted(allowed):
        siblings = procfs.numbers(
            procfs.read(root / _CPUS / f"cpu{cpu}/topology/thread_siblings_list")
        )
        found.append(HostCpu(cpu, node_of.get(cpu, 0), siblings or (cpu,)))
    return tuple(found)


def _nodes(root: Path, allowed: Collection[int] | None) -> tuple[HostNode, ...]:
    folders = (root / _NODES).glob("node[0-9]*")
    found = [
        HostNode(
            int(folder.name.removeprefix("node")),
            _node_available(procfs.read(folder / "meminfo")),
            _hugepages(folder / "hugepages"),
        )
        for folder in folders
    ]
    usable = (node for node in found if allowed is None or node.number in allowed)
    return tuple(sorted(usable, key=lambda node: node.number))


def _hugepages(folder: Path) -> dict[int, int]:
    found = {}
    for size in sorted(folder.glob("hugepages-*kB")):
        kibibytes = int(size.name.removeprefix("hugepages-").removesuffix("kB"))
        free = procfs.read(size / "free_hugepages")
        found[kibibytes * 1024] = int(free) if procfs.is_count(free) else 0
    return found


def _node_available(text: str) -> int:
    names = ("MemFree", "Active(file)", "Inactive(file)")
    return sum(procfs.size_bytes(text, name) for name in names)
