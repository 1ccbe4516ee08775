"""Unusual topologies."""

import json

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


def cpu_lists(guest, nodes):
    return [guest.read(f"{NODE}/node{n}/cpulist").strip() for n in range(nodes)]


# Each guest is also compared with its topology when it boots.


@pytest.mark.kernels("stock")
@pytest.mark.topology(
    nodes=[
        {"cpus": 2, "memory": "128MiB"},
        {"cpus": 1, "memory": "64MiB"},
        {"cpus": 0, "memory": "64MiB"},
        {"cpus": 0, "memory": "192MiB"},
    ],
    distances=31,
)
def test_nodes_may_have_memory_only(guest):
    assert guest.read(f"{NODE}/has_cpu") == "0-1\n"
    assert guest.read(f"{NODE}/has_memory") == "0-3\n"
    assert cpu_lists(guest, 4) == ["0-1", "2", "", ""]
    interleaved = "freebench --size 16MiB --threads 2 --placement interleave"
    pages = json.loads(guest.output(interleaved))["pages_per_node"]
    assert [count // 1024 for count in pages] == [1, 1, 1, 1]


@pytest.mark.kernels("stock")
@pytest.mark.topology(
    nodes=[
        {"cpus": 1, "memory": 0},
        {"cpus": 2, "memory": "128MiB"},
        {"cpus": 1, "memory": 0},
        {"cpus": 0, "memory": "64MiB"},
    ]
)
def test_nodes_may_lack_memory(guest):
    assert guest.read(f"{NODE}/has_cpu") == "0-2\n"
    assert guest.read(f"{NODE}/has_memory") == "1,3\n"
    assert cpu_lists(guest, 4) == ["0", "1-2", "3", ""]
    freebench = "freebench --size 8MiB --threads 4 --placement"
    pages = json.loads(guest.output(f"{freebench} interleave"))["pages_per_node"]
    assert [count // 1024 for count in pages] == [0, 1, 0, 1]
    pages = json.loads(guest.output(f"{freebench} local"))["pages_per_node"]
    assert sum(pages) // 1024 == 2
    assert pages[1] >= 1024  # of the two threads there


@pytest.mark.kernels("stock")
@pytest.mark.topology(
    nodes=[
        {"cpus": 1, "memory": "64MiB"},
        {"cpus": 1, "memory": "128MiB"},
        {"cpus": 1, "memory": "256MiB"},
    ]
)
def test_nodes_may_have_different_memory(guest):
    sizes = [guest.read(f"{NODE}/node{n}/meminfo").split()[3] for n in range(3)]
    assert int(sizes[0]) < int(sizes[1]) < int(sizes[2])


@pytest.mark.kernels("stock")
@pytest.mark.topology(
    nodes=2,
    cpus_per_node=4,
    memory_per_node="96MiB",
    sockets=2,
    cores=2,
    threads=2,
    qemu=["-device", "virtio-rng-pci"],
)
def test_cores_may_have_threads(guest):
    assert "0x1005" in guest.output("cat /sys/bus/pci/devices/*/device").split()  # `qemu:`
    cpu = "/sys/devices/system/cpu/cpu{}/topology/{}".format
    assert guest.read(cpu(1, "thread_siblings_list")) == "0-1\n"
    assert guest.read(cpu(6, "thread_siblings_list")) == "6-7\n"
    assert guest.read(cpu(2, "core_siblings_list")) == "0-3\n"
    assert guest.read(cpu(7, "physical_package_id")) == "1\n"
    assert cpu_lists(guest, 2) == ["0-3", "4-7"]
