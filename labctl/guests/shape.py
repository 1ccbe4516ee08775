"""The topology of a booted guest as its init reports it, compared with lab.yaml. Pure.

Memory is the present pages of /proc/zoneinfo, from which the kernel's own
reservations (its image, page structs, shadow memory) are not taken away.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from labctl import units
from labctl.errors import UserError
from labctl.lab.topology import Topology

# What the firmware keeps of a node's memory: on a PC, 384 KiB below 1 MiB and its tables
# at the end of the memory below 4 GiB, together less than 1 MiB. Kernels round a node's
# borders to pages; the rest is a margin for firmware that differs.
TOLERANCE_BYTES = 2 * units.MIB
_NODE = re.compile(
    r"node (?P<number>\d{1,6}) cpus=(?P<cpus>[\d,-]*) memory_kib=(?P<memory>\d{1,15})"
    r" distances=(?P<distances>[\d,*]*)\s*$"
)
_MOST = 8192  # Linux supports as many CPUs, and 1024 nodes
_LONGEST = 6
_PACKAGES = re.compile(r"cpus sockets=(\d{1,6}) cores=(\d{1,6}) threads=(\d{1,6})\s*$")
_MOST_LISTED = 4


@dataclass(frozen=True, slots=True)
class Node:
    """One online NUMA node: its online CPUs, its memory, its distances to all online nodes."""

    number: int
    cpus: tuple[int, ...]
    memory_bytes: int
    distances: tuple[int, ...]


def parse(text: str) -> Node | None:
    """Return the node in a line of guest/init/nodes.c, None if the line is something else."""
    found = _NODE.match(text)
    if found is None:
        return None
    try:
        return Node(
            int(found["number"]),
            _ranges(found["cpus"]),
            int(found["memory"]) * units.KIB,
            _repeated(found["distances"]),
        )
    except ValueError:
        return None


def _ranges(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cpus = range(_number(first), _number(last or first) + 1)
        _check_count(len(found) + len(cpus))
        found += cpus
    return tuple(found)


def _repeated(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in filter(None, text.split(",")):
        value, _, count = part.partition("*")
        repetitions = _number(count or "1")
        _check_count(len(found) + repetitions)
        found += [_number(value)] * repetitions
    return tuple(found)


def _number(text: str) -> int:
    """Return a number of a guest; raise ValueError for a longer one than Linux prints."""
    if len(text) > _LONGEST:
        raise ValueError("too many digits")
    return int(text)


def _check_count(count: int) -> None:
    if count > _MOST:
        raise ValueError("too many")


def check(topology: Topology, reports: Sequence[str], *, kernel: str, where: str) -> None:
    """Compare the nodes that a guest's init reported with the topology.

    Raises:
        UserError: they differ; names the kernel and what to check.
    """
    found = differences(topology, [node for text in reports if (node := parse(text))])
    if not found and topology.has_packages:
        found = [*_packages(topology, reports)]
    if found:
        raise UserError(
            f"kernel {kernel} does not see the configured topology: " + "; ".join(found),
            where=where,
            hint="check CONFIG_NUMA, CONFIG_ACPI_NUMA, CONFIG_NODES_SHIFT and CONFIG_NR_CPUS "
            "in its .config; mem=, maxcpus=, nr_cpus= and numa= on its command line; and "
            "the SRAT and SLIT lines of the console",
        )


def differences(topology: Topology, nodes: Sequence[Node]) -> list[str]:
    """Return the differences between a topology and a guest, most important first."""
    have = {node.number: node for node in nodes}
    if sorted(have) != list(range(topology.node_count)):
        return [*_totals(topology, nodes)]
    found = [
        *_cpus(topology, have.values()),
        *_memory(topology, have.values()),
        *_distances(topology, have.values()),
    ]
    return listed(found)


def listed(found: Sequence[str]) -> list[str]:
    """Return the first differences, and how many more there are."""
    more = len(found) - _MOST_LISTED
    return [*found] if more <= 0 else [*found[:_MOST_LISTED], f"and {more} more"]


def _packages(topology: Topology, reports: Sequence[str]) -> Iterator[str]:
    sockets, cores, threads = topology.packages
    # init counts the sockets, cores and threads of the whole guest
    expected = (sockets, sockets * cores, sockets * cores * threads)
    matches = (_PACKAGES.match(text) for text in reports)
    got = next((tuple(map(int, found.groups())) for found in matches if found), None)
    if got != expected:
        yield f"expected {_counted(expected)}, got {_counted(got) if got else 'no report of them'}"


def _counted(packages: Sequence[int]) -> str:
    nouns = ("socket", "core", "thread")
    return ", ".join(_count(number, noun) for number, noun in zip(packages, nouns, strict=True))


def _totals(topology: Topology, nodes: Sequence[Node]) -> Iterator[str]:
    count = topology.node_count
    if len(nodes) == count:
        numbers = ", ".join(str(node.number) for node in nodes)
        yield f"expected NUMA nodes 0 to {count - 1}, got {numbers}"
    else:
        yield f"expected {_count(count, 'NUMA node')}, got {len(nodes)}"
    cpus = sum(len(node.cpus) for node in nodes)
    if cpus != topology.vcpus:
        yield f"expected {_count(topology.vcpus, 'CPU')}, got {cpus}"
    memory = sum(node.memory_bytes for node in nodes)
    if _differs(topology.boot_memory_bytes, memory, count):
        yield _memory_difference(topology.boot_memory_bytes, memory)


def _cpus(topology: Topology, nodes: Collection[Node]) -> Iterator[str]:
    for node in nodes:
        expected = tuple(topology.cpus[node.number])
        if tuple(sorted(node.cpus)) != expected:
            difference = f"expected {_cpu_list(expected)}, got {_cpu_list(node.cpus)}"
            yield f"node {node.number}: {difference}"


def _memory(topology: Topology, nodes: Collection[Node]) -> Iterator[str]:
    for node in nodes:
        expected_bytes = topology.each[node.number].memory
        if _differs(expected_bytes, node.memory_bytes, 1):
            difference = _memory_difference(expected_bytes, node.memory_bytes)
            yield f"node {node.number}: {difference}"


def _distances(topology: Topology, nodes: Collection[Node]) -> Iterator[str]:
    for node in nodes:
        expected = [
            topology.distances.distance(node.number, to) for to in range(topology.node_count)
        ]
        if len(node.distances) != len(expected):
            got = len(node.distances)
            yield f"node {node.number}: expected {_count(len(expected), 'distance')}, got {got}"
            continue
        for to, (asked, got) in enumerate(zip(expected, node.distances, strict=True)):
            if asked != got:
                yield f"distance from node {node.number} to node {to}: expected {asked}, got {got}"


def _differs(expected_bytes: int, got_bytes: int, nodes: int) -> bool:
    return not 0 <= expected_bytes - got_bytes <= nodes * TOLERANCE_BYTES


def _memory_difference(expected_bytes: int, got_bytes: int) -> str:
    # In MiB even of large nodes: a few missing MiB are a difference.
    expected, got = (f"{size / units.MIB:.0f} MiB" for size in (expected_bytes, got_bytes))
    return f"expected {expected} of memory, got {got}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _cpu_list(cpus: Sequence[int]) -> str:
    if not cpus:
        return "no CPU"
    shown = ", ".join(map(str, cpus[:_MOST_LISTED]))
    return f"CPU{'' if len(cpus) == 1 else 's'} {shown}" + (
        f" and {len(cpus) - _MOST_LISTED} more" if len(cpus) > _MOST_LISTED else ""
    )
