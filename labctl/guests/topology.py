"""QEMU arguments for a NUMA topology. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labctl.lab.topology import Topology

# More threads do not touch memory faster.
_MOST_PREALLOC_THREADS = 16


def qemu_arguments(topology: Topology, host_nodes: Sequence[int] = ()) -> list[str]:
    """Return the arguments that give a guest its nodes, vCPUs, memory and distances.

    Each node has a memory backend and `cpus_per_node` vCPUs in one socket. All node
    distances are listed, also the local 10. With `host_nodes`, one for each node, the
    memory is bound to these host nodes.
    """
    words = ["-m", _mebibytes(topology.nodes * topology.memory_per_node), "-smp", sockets(topology)]
    for node in range(topology.nodes):
        first = node * topology.cpus_per_node
        last = first + topology.cpus_per_node - 1
        cpus = f"{first}-{last}" if last > first else f"{first}"
        words += [
            "-object",
            memory_backend(topology, node, host_nodes[node] if host_nodes else None),
            "-numa",
            f"node,nodeid={node},cpus={cpus},memdev=ram{node}",
        ]
    for source, target, distance in _distances(topology):
        words += ["-numa", f"dist,src={source},dst={target},val={distance}"]
    return words


def memory_backend(topology: Topology, node: int, host_node: int | None) -> str:
    """Return the QEMU object for a node's memory.

    Hugepages are always preallocated: without a free page, QEMU would die at first touch,
    in the middle of a measurement.
    """
    kind = "memory-backend-memfd" if topology.hugepages else "memory-backend-ram"
    parts = [kind, f"id=ram{node}", f"size={_mebibytes(topology.memory_per_node)}"]
    if topology.hugepages:
        parts += ["hugetlb=on", f"hugetlbsize={_mebibytes(topology.hugepages)}"]
    if topology.prealloc or topology.hugepages:
        threads = min(topology.vcpus, _MOST_PREALLOC_THREADS)
        parts += ["prealloc=on", f"prealloc-threads={threads}"]
    if host_node is not None:
        parts += [f"host-nodes={host_node}", "policy=bind"]
    return ",".join(parts)


def sockets(topology: Topology) -> str:
    """Return the value of `-smp`: one socket per node."""
    cpus = topology.nodes * topology.cpus_per_node
    return f"{cpus},sockets={topology.nodes},cores={topology.cpus_per_node},threads=1"


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes // 2**20}M" if size_bytes % 2**20 == 0 else f"{size_bytes}B"


def _distances(topology: Topology) -> Iterator[tuple[int, int, int]]:
    for source in range(topology.nodes):
        for target in range(topology.nodes):
            yield source, target, topology.distances.distance(source, target)
