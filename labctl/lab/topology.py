"""The shape of a guest: NUMA nodes with vCPUs and memory, and where they go on the host. Pure."""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, Any, NamedTuple

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    WrapValidator,
    model_serializer,
)

from labctl import units
from labctl.lab.hotplug import Hotplug, or_size
from labctl.lab.memory_speed import BANDWIDTH, LATENCY, Bandwidths, Latencies, rows
from labctl.lab.storage import Disks, OptionalSwap
from labctl.lab.types import (
    LOCAL_DISTANCE,
    Count,
    Distance,
    Flag,
    HostCpus,
    HostNodes,
    Model,
    NodeMemory,
    OwnMemory,
    PageSize,
)


class Distances(Model):
    """NUMA distances: one number for all pairs of nodes, or a matrix."""

    remote: Distance = Field(
        20, description="Distance between any two different nodes. Conflicts with `matrix`."
    )
    matrix: tuple[tuple[Distance, ...], ...] | None = Field(
        None,
        description="Distance of each pair of nodes: one row and one column per node, 10 on the"
        " diagonal. Example for two nodes: [[10, 30], [25, 10]]. If omitted, `remote` is used.",
    )

    def distance(self, i: int, j: int) -> int:
        """Return the distance from node `i` to node `j`."""
        if self.matrix is not None:
            return self.matrix[i][j]
        return LOCAL_DISTANCE if i == j else self.remote


class Node(Model):
    """One NUMA node of a guest whose nodes differ."""

    cpus: Annotated[Count, Field(ge=0, le=255)] = Field(
        description="Number of vCPUs; 0 for a node that only has memory, which must come after"
        " the nodes with vCPUs."
    )
    memory: OwnMemory = Field(
        description="Memory in whole MiB, at least 64MiB; 0 for a node without memory."
    )
    hotplug: Hotplug | None = Field(
        None,
        json_schema_extra=or_size,
        description="Memory that is hotplugged: a size, or a mapping. A node with neither"
        " vCPUs nor `memory` must be the last one. Example: 1GiB (QEMU and x86 only).",
    )

    @model_serializer(mode="wrap")
    def _serialized(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}

    @property
    def hotplug_bytes(self) -> int:
        """Hotplugged memory of the node, in bytes."""
        return self.hotplug.memory if self.hotplug else 0

    @property
    def every_byte(self) -> int:
        """All memory of the node, in bytes."""
        return self.memory + self.hotplug_bytes


class Packages(NamedTuple):
    """How the vCPUs of a guest share sockets and cores; `threads` are those of a core."""

    sockets: int
    cores: int
    threads: int

    def __str__(self) -> str:
        levels = zip(self, ("socket", "core", "thread"), strict=True)
        return " x ".join(units.counted(number, noun) for number, noun in levels)


_MOST_NODES = 128
PACKAGES = ("sockets", "cores", "threads")
_OptionalCpus = Annotated[Count, Field(ge=1, le=255)] | None
# Of a guest whose nodes are listed, these say nothing.
PER_NODE = ("cpus_per_node", "memory_per_node")
# Keys that are recorded only if they are set.
_LATER = (LATENCY, BANDWIDTH, "swap", "disks", "icount", "qemu")
_NODE_NUMBER = Annotated[Count, Field(ge=1, le=_MOST_NODES)]
_NODE_LIST = Annotated[tuple[Node, ...], Field(min_length=1, max_length=_MOST_NODES)]


@cache
def _adapter(*, is_list: bool) -> TypeAdapter[Any]:
    return TypeAdapter(_NODE_LIST if is_list else _NODE_NUMBER)


def _nodes(value: object, _: object) -> Any:  # noqa: ANN401 - a number or a tuple
    """Return the validated nodes. An error names the place in the list, not the type tried."""
    if isinstance(value, dict):
        example = "[{cpus: 2, memory: 2GiB}, {cpus: 0, memory: 4GiB}]"
        what = f"expected a number or a list of nodes, got {units.kind(value)}"
        raise units.UnitError(what, f"example: {example}")
    return _adapter(is_list=isinstance(value, list | tuple)).validate_python(value)


class Topology(Model):
    """A guest's NUMA nodes: equal ones, or a list of nodes that may differ."""

    nodes: Annotated[_NODE_NUMBER | _NODE_LIST, WrapValidator(_nodes)] = Field(
        4,
        description="Number of NUMA nodes with the same vCPUs and memory, or a list of nodes."
        " Example of a list: [{cpus: 2, memory: 2GiB}, {cpus: 0, memory: 4GiB}].",
    )
    cpus_per_node: Annotated[Count, Field(ge=1, le=255)] = Field(
        1, description="Number of vCPUs per node. Conflicts with a list of `nodes`."
    )
    memory_per_node: NodeMemory = Field(
        1536 * units.MIB,
        description="Memory per node, in whole MiB, at least 64MiB. Conflicts with a list of"
        " `nodes`. Default: 1536MiB.",
    )
    sockets: _OptionalCpus = Field(
        None,
        description="Number of sockets. `sockets` x `cores` x `threads` are the vCPUs of all nodes,"
        " and no socket is on two nodes. If omitted, as many as the rest needs.",
    )
    cores: _OptionalCpus = Field(
        None,
        description="Number of cores per socket. If omitted, as many as the rest needs.",
    )
    threads: _OptionalCpus = Field(None, description="Number of vCPUs per core. If omitted, 1.")
    distances: Distances = Field(
        Distances(), description="NUMA distances. Example: {remote: 21}. Default: {remote: 20}."
    )
    latency: Latencies = Field(
        None,
        description="Latency of each node's memory, for Linux to read from ACPI's HMAT: one value"
        " per node, or one row per node with vCPUs. Example: [80ns, 250ns] (QEMU and x86 only).",
    )
    bandwidth: Bandwidths = Field(
        None,
        description="Bandwidth of each node's memory, like `latency`. Example: [40GiB/s, 8GiB/s].",
    )
    swap: OptionalSwap = Field(
        None,
        description="Swap, on when the guest is ready. Example: {zram: 512MiB} (QEMU only).",
    )
    disks: Disks = Field(
        (),
        description="Sizes of empty scratch disks: /dev/vda, /dev/vdb and so on. Example: [1GiB]"
        " (QEMU only).",
    )
    prealloc: Flag = Field(
        False, description="Allocate all guest memory on the host before boot (QEMU only)."
    )
    hugepages: PageSize = Field(
        None,
        description="Size of the host huge pages that back guest memory: 2MiB, 1GiB or none"
        " (QEMU only). The memory of each node must be a multiple of it. Default: none.",
    )
    host_nodes: HostNodes = Field(
        None,
        description="Host NUMA nodes that guest nodes' memory is bound to, in turn (QEMU only):"
        " a list like [0, 1]; auto for all nodes of the host; none. Default: none.",
    )
    pin: HostCpus = Field(
        "auto",
        description="Host CPUs that vCPUs are pinned to during a measurement, in turn: a list"
        " like [2, 3, 4, 5]; auto for one host CPU per vCPU (nothing is pinned if the host has"
        " too few); none.",
    )
    icount: Flag = Field(
        False,
        description="Let the guest's clock count executed instructions, 1 ns each (`-icount` of"
        " QEMU; needs `accel: tcg`). Times do not depend on the host's load then, but vCPUs take"
        " turns in one thread: a guest with one vCPU shows the cost of code.",
    )

    qemu: tuple[str, ...] = Field(
        (),
        description="More arguments of QEMU, each word an item: [-device, virtio-rng-pci]."
        " What labctl sets itself is rejected. Files need absolute paths.",
    )

    @model_serializer(mode="wrap")
    def _serialized(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Records of older versions lack these keys.
        absent = {key for key in (*PACKAGES, *_LATER) if not getattr(self, key)}
        absent |= {*PER_NODE} if self.is_listed else set()
        return {key: value for key, value in handler(self).items() if key not in absent}

    @property
    def is_listed(self) -> bool:
        """Whether `nodes` is a list."""
        return isinstance(self.nodes, tuple)

    @property
    def each(self) -> tuple[Node, ...]:
        """The nodes of one guest, however they were written."""
        if isinstance(self.nodes, tuple):
            return self.nodes
        return (Node(cpus=self.cpus_per_node, memory=self.memory_per_node),) * self.nodes

    @property
    def node_count(self) -> int:
        """Number of nodes of one guest."""
        return len(self.nodes) if isinstance(self.nodes, tuple) else self.nodes

    @property
    def cpus(self) -> tuple[range, ...]:
        """The numbers of the vCPUs of each node, counted over all nodes."""
        found, first = [], 0
        for node in self.each:
            found.append(range(first, first + node.cpus))
            first += node.cpus
        return tuple(found)

    @property
    def packages(self) -> Packages:
        """Sockets, cores and threads. By default no socket is on two nodes."""
        threads = self.threads or 1
        shared = math.gcd(*(node.cpus for node in self.each))
        if self.sockets:
            shared = self.vcpus // self.sockets
        cores = self.cores or max(1, shared // threads)
        return Packages(self.sockets or max(1, self.vcpus // (cores * threads)), cores, threads)

    @property
    def has_packages(self) -> bool:
        """Whether lab.yaml sets sockets, cores or threads."""
        return any(getattr(self, key) for key in PACKAGES)

    @property
    def vcpus(self) -> int:
        """Number of vCPUs of one guest."""
        return sum(node.cpus for node in self.each)

    @property
    def boot_memory_bytes(self) -> int:
        """Memory of one guest when it boots, without hotplugged memory, in bytes."""
        return sum(node.memory for node in self.each)

    @property
    def memory_bytes(self) -> int:
        """All memory of one guest, in bytes."""
        return sum(node.every_byte for node in self.each)

    @property
    def disk_bytes(self) -> int:
        """Size of the scratch and swap disks of one guest, in bytes."""
        return sum(self.disks) + ((self.swap.disk or 0) if self.swap else 0)

    @property
    def has_hotplug(self) -> bool:
        """Whether a node has hotplugged memory."""
        return any(node.hotplug for node in self.each)

    @property
    def has_memory_speed(self) -> bool:
        """Whether lab.yaml states the latency or the bandwidth of memory."""
        return self.latency is not None or self.bandwidth is not None

    @property
    def initiators(self) -> list[int]:
        """The nodes with vCPUs: the rows of `latency_rows` and `bandwidth_rows`."""
        return [number for number, node in enumerate(self.each) if node.cpus]

    @property
    def latency_rows(self) -> list[tuple[int, ...]]:
        """The latency in ns from each node with vCPUs to each node, empty if not stated."""
        return rows(self.latency, len(self.initiators)) if self.latency else []

    @property
    def bandwidth_rows(self) -> list[tuple[int, ...]]:
        """The bandwidth in bytes/s from each node with vCPUs to each node."""
        return rows(self.bandwidth, len(self.initiators)) if self.bandwidth else []

    @property
    def memory_keys(self) -> str:
        """The keys of lab.yaml that set the memory, for hints."""
        return "`memory:` of its nodes" if self.is_listed else "`memory_per_node:`"

    @property
    def nodes_told(self) -> str:
        """The nodes' memory as a sum: `4 x 1GiB`, or `2GiB + 4GiB`."""
        if self.is_listed:
            sizes = (node.every_byte for node in self.each)
            return " + ".join(units.format_size(size) for size in sizes if size)
        return f"{self.nodes} x {units.format_size(self.memory_per_node)}"
