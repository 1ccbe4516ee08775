"""The shape of a guest: NUMA nodes with vCPUs and memory, and where they go on the host. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from labctl import units
from labctl.lab.types import (
    LOCAL_DISTANCE,
    Count,
    Distance,
    Flag,
    HostCpus,
    HostNodes,
    Model,
    NodeMemory,
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


class Topology(Model):
    """A guest's NUMA nodes, with the same number of vCPUs and the same memory in each."""

    nodes: Annotated[Count, Field(ge=1, le=128)] = Field(4, description="Number of NUMA nodes.")
    cpus_per_node: Annotated[Count, Field(ge=1, le=255)] = Field(
        1, description="Number of vCPUs per node."
    )
    memory_per_node: NodeMemory = Field(
        1536 * units.MIB,
        description="Memory per node, in whole MiB, at least 64MiB. Default: 1536MiB.",
    )
    distances: Distances = Field(
        Distances(), description="NUMA distances. Example: {remote: 21}. Default: {remote: 20}."
    )
    prealloc: Flag = Field(
        False, description="Allocate all guest memory on the host before boot (QEMU only)."
    )
    hugepages: PageSize = Field(
        None,
        description="Size of the host huge pages that back guest memory: 2MiB, 1GiB or none"
        " (QEMU only). `memory_per_node` must be a multiple of it. Default: none.",
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

    @property
    def vcpus(self) -> int:
        """Number of vCPUs of one guest."""
        return self.nodes * self.cpus_per_node

    @property
    def memory_bytes(self) -> int:
        """Memory of one guest, in bytes."""
        return self.nodes * self.memory_per_node
