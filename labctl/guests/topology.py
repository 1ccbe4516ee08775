"""QEMU arguments for a NUMA topology. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labctl.lab.topology import Topology

# More threads do not touch memory faster.
_MOST_PREALLOC_THREADS = 16


def qemu_arguments(topology: Topology, host_nodes: Sequence[int] = ()) -> list[str]:
    """Return the arguments that give a guest its nodes, vCPUs, memory and distances.

    A node with memory has a memory backend. No socket is on two nodes. All node distances
    are listed, also the local 10. With `host_nodes`, one for each node, the memory is bound
    to these host nodes.
    """
    words = ["-m", _mebibytes(topology.memory_bytes), "-smp", sockets(topology)]
    for number, (node, cpus) in enumerate(zip(topology.each, topology.cpus, strict=True)):
        parts = ["node", f"nodeid={number}"]
        if cpus:
            parts.append(f"cpus={cpu_range(cpus)}")
        if node.memory:
            host_node = host_nodes[number] if host_nodes else None
            words += ["-object", memory_backend(topology, number, host_node)]
            parts.append(f"memdev=ram{number}")
        words += ["-numa", ",".join(parts)]
    for source, target, distance in _distances(topology):
        words += ["-numa", f"dist,src={source},dst={target},val={distance}"]
    return words


def memory_backend(topology: Topology, node: int, host_node: int | None) -> str:
    """Return the QEMU object for a node's memory.

    Hugepages are always preallocated: without a free page, QEMU would die at first touch,
    in the middle of a measurement.
    """
    kind = "memory-backend-memfd" if topology.hugepages else "memory-backend-ram"
    parts = [kind, f"id=ram{node}", f"size={_mebibytes(topology.each[node].memory)}"]
    if topology.hugepages:
        parts += ["hugetlb=on", f"hugetlbsize={_mebibytes(topology.hugepages)}"]
    if topology.prealloc or topology.hugepages:
        threads = min(topology.vcpus, _MOST_PREALLOC_THREADS)
        parts += ["prealloc=on", f"prealloc-threads={threads}"]
    if host_node is not None:
        parts += [f"host-nodes={host_node}", "policy=bind"]
    return ",".join(parts)


def sockets(topology: Topology) -> str:
    """Return the value of `-smp`: one socket per node, more if nodes have different vCPUs.

    QEMU counts vCPUs through threads, then cores, then sockets, so that the CPUs of a node
    are whole sockets.
    """
    found = topology.packages
    return f"{topology.vcpus},sockets={found.sockets},cores={found.cores},threads={found.threads}"


def cpu_range(cpus: range) -> str:
    """Return consecutive CPUs as QEMU and vng take them: `4-7`, or `4`."""
    return f"{cpus[0]}-{cpus[-1]}" if len(cpus) > 1 else f"{cpus[0]}"


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes // 2**20}M" if size_bytes % 2**20 == 0 else f"{size_bytes}B"


def _distances(topology: Topology) -> Iterator[tuple[int, int, int]]:
    for source in range(topology.node_count):
        for target in range(topology.node_count):
            yield source, target, topology.distances.distance(source, target)
