"""QEMU arguments for a NUMA topology. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labctl import units
from labctl.lab.topology import Topology

# More threads do not touch memory faster.
_MOST_PREALLOC_THREADS = 16


def qemu_arguments(topology: Topology, host_nodes: Sequence[int] = ()) -> list[str]:
    """Return the arguments that give a guest its nodes, vCPUs, memory and distances.

    A node with memory has a memory backend. No socket is on two nodes. All node distances
    are listed, also the local 10. With `host_nodes`, one for each node, the memory is bound
    to these host nodes. HMAT also needs `machine_options`.
    """
    words = ["-m", _memory(topology), "-smp", sockets(topology)]
    for number, (node, cpus) in enumerate(zip(topology.each, topology.cpus, strict=True)):
        parts = ["node", f"nodeid={number}"]
        if cpus:
            parts.append(f"cpus={cpu_range(cpus)}")
        if node.memory:
            words += ["-object", memory_backend(topology, number, _bound(host_nodes, number))]
            parts.append(f"memdev=ram{number}")
        initiator = best_initiator(topology, number) if topology.has_memory_speed else None
        if initiator is not None:
            parts.append(f"initiator={initiator}")
        words += ["-numa", ",".join(parts)]
    for source, target, distance in _distances(topology):
        words += ["-numa", f"dist,src={source},dst={target},val={distance}"]
    for value in _speeds(topology):
        words += ["-numa", f"hmat-lb,{value}"]
    for number, node in enumerate(topology.each):
        words += _dimm(topology, number, _bound(host_nodes, number)) if node.hotplug else []
    return words


def machine_options(topology: Topology) -> str:
    """Return what a topology adds to the value of `-machine`."""
    return ",hmat=on" if topology.has_memory_speed else ""


def best_initiator(topology: Topology, node: int) -> int | None:
    """Return the node with vCPUs that is nearest to a node's memory, None if several are.

    A node with vCPUs is nearest to its own memory, as QEMU requires. Otherwise the latency
    counts first and then the bandwidth, as for Linux (hmat_register_target_initiators).
    """
    if topology.each[node].cpus:
        return node
    speeds = {
        initiator: speed(topology, row, node) for row, initiator in enumerate(topology.initiators)
    }
    best = min((latency, -bandwidth) for latency, bandwidth in speeds.values())
    nearest = [i for i, (latency, bandwidth) in speeds.items() if (latency, -bandwidth) == best]
    return nearest[0] if len(nearest) == 1 else None


def speed(topology: Topology, row: int, node: int) -> tuple[int, int]:
    """Return latency (ns) and bandwidth (bytes/s) of a node's memory, 0 if not stated.

    `row` is the index of the node with vCPUs among all such nodes.
    """
    latencies, bandwidths = topology.latency_rows, topology.bandwidth_rows
    latency = latencies[row][node] if latencies else 0
    return latency, bandwidths[row][node] if bandwidths else 0


def _speeds(topology: Topology) -> Iterator[str]:
    for row, initiator in enumerate(topology.initiators):
        for node in range(topology.node_count):
            latency, bandwidth = speed(topology, row, node)
            where = f"initiator={initiator},target={node},hierarchy=memory,data-type=access"
            if latency:
                yield f"{where}-latency,latency={latency}"
            if bandwidth:
                yield f"{where}-bandwidth,bandwidth={_mebibytes(bandwidth)}"


def _memory(topology: Topology) -> str:
    size = _mebibytes(topology.boot_memory_bytes)
    if not topology.has_hotplug:
        return size
    slots = sum(node.hotplug is not None for node in topology.each)
    return f"{size},slots={slots},maxmem={_mebibytes(topology.memory_bytes)}"


def _dimm(topology: Topology, node: int, host_node: int | None) -> list[str]:
    name = f"dimm{node}"
    size = topology.each[node].hotplug_bytes
    backend = _backend(topology, name, size, host_node)
    device = f"pc-dimm,id={name}-device,memdev={name},node={node}"
    return ["-object", backend, "-device", device]


def _bound(host_nodes: Sequence[int], node: int) -> int | None:
    return host_nodes[node] if host_nodes else None


def memory_backend(topology: Topology, node: int, host_node: int | None) -> str:
    """Return the QEMU object for a node's memory at boot."""
    return _backend(topology, f"ram{node}", topology.each[node].memory, host_node)


def _backend(topology: Topology, name: str, size_bytes: int, host_node: int | None) -> str:
    """Return the QEMU object for some memory.

    Hugepages are always preallocated: without a free page, QEMU would die at first touch,
    in the middle of a measurement.
    """
    kind = "memory-backend-memfd" if topology.hugepages else "memory-backend-ram"
    parts = [kind, f"id={name}", f"size={_mebibytes(size_bytes)}"]
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
    whole, rest = divmod(size_bytes, units.MIB)
    return f"{size_bytes}B" if rest else f"{whole}M"


def _distances(topology: Topology) -> Iterator[tuple[int, int, int]]:
    for source in range(topology.node_count):
        for target in range(topology.node_count):
            yield source, target, topology.distances.distance(source, target)
