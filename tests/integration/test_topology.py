"""Unusual topologies."""

import pytest

NODE = "/sys/devices/system/node"
MATRIX = [[10, 17, 40], [29, 10, 31], [40, 12, 10]]


@pytest.mark.kernels("stock")
@pytest.mark.tunables(numa_balancing="enable")
@pytest.mark.topology(nodes=3, cpus_per_node=2, memory_per_node="256MiB", distances=MATRIX)
def test_distances_may_differ_both_ways_and_nodes_have_several_cpus(guest):
    assert guest.read(f"{NODE}/online") == "0-2\n"
    rows = [guest.read(f"{NODE}/node{n}/distance").split() for n in range(3)]
    assert [[int(d) for d in row] for row in rows] == MATRIX
    lists = [guest.read(f"{NODE}/node{n}/cpulist").strip() for n in range(3)]
    assert lists == ["0-1", "2-3", "4-5"]
    assert guest.read("/proc/sys/kernel/numa_balancing") == "1\n"  # off without the parameter
