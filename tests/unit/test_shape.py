"""What a booted guest is, compared with what was asked for."""

import pytest

from labctl.errors import UserError
from labctl.guests import shape
from labctl.lab.topology import Distances, Topology

MIB = 2**20
ASKED = Topology(
    nodes=3, cpus_per_node=2, memory_per_node=256 * MIB, distances=Distances(remote=21)
)
# As guest/init/nodes.c says it of a guest of QEMU's machine `pc`.
SAID = [
    "node 0 cpus=0-1 memory_kib=261752 distances=10,21*2",
    "node 1 cpus=2-3 memory_kib=262144 distances=21,10,21",
    "node 2 cpus=4-5 memory_kib=262016 distances=21*2,10",
]


def differences(*texts, asked=ASKED):
    return shape.differences(asked, [shape.parse(text) for text in texts])


def changed(number, old, new):
    return [text.replace(old, new) if n == number else text for n, text in enumerate(SAID)]


def test_a_guest_with_the_requested_topology_is_kept():
    assert differences(*SAID) == []


def test_nodes_that_became_one():
    (nodes,) = differences("node 0 cpus=0-5 memory_kib=785912 distances=10")
    assert nodes == "expected 3 NUMA nodes, got 1"


def test_what_is_missing_beside_nodes_is_counted():
    found = differences("node 0 cpus=0-3 memory_kib=261752 distances=10")
    assert found == [
        "expected 3 NUMA nodes, got 1",
        "expected 6 CPUs, got 4",
        "expected 768 MiB of memory, got 256 MiB",
    ]


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (changed(2, "cpus=4-5", "cpus="), "node 2: expected CPUs 4, 5, got no CPU"),
        (changed(1, "cpus=2-3", "cpus=3"), "node 1: expected CPUs 2, 3, got CPU 3"),
        (changed(0, "261752", "131072"), "node 0: expected 256 MiB of memory, got 128 MiB"),
        (changed(0, "261752", "262148"), "node 0: expected 256 MiB of memory, got 256 MiB"),
        (changed(1, "262144", "260000"), "node 1: expected 256 MiB of memory, got 254 MiB"),
        (changed(1, "=21,10", "=20,10"), "distance from node 1 to node 0: expected 21, got 20"),
        (changed(1, "=21,10,21", "=21,10"), "node 1: expected 3 distances, got 2"),
        (SAID[:2], "expected 3 NUMA nodes, got 2"),
        ([], "expected 3 NUMA nodes, got 0"),
        ([SAID[0], SAID[1], SAID[2].replace("node 2", "node 4")], "expected NUMA nodes 0 to 2"),
    ],
)  # fmt: skip
def test_what_differs_is_named(message, found):
    assert any(text.startswith(found) for text in differences(*message)), differences(*message)


UNEQUAL = Topology(
    nodes=[
        {"cpus": 2, "memory": "128MiB"},
        {"cpus": 1, "memory": 0},
        {"cpus": 0, "memory": "64MiB"},
    ]
)
UNEQUAL_SAID = [
    "node 0 cpus=0-1 memory_kib=130680 distances=10,20*2",
    "node 1 cpus=2 memory_kib=0 distances=20,10,20",
    "node 2 cpus= memory_kib=65408 distances=20*2,10",
]


def test_nodes_without_cpus_or_memory_are_compared_too():
    assert differences(*UNEQUAL_SAID, asked=UNEQUAL) == []
    said = [
        UNEQUAL_SAID[0].replace("0-1", "0-2"),
        "node 1 cpus= memory_kib=1024 distances=20,10,20",
        UNEQUAL_SAID[2].replace("65408", "0"),
    ]
    assert differences(*said, asked=UNEQUAL) == [
        "node 0: expected CPUs 0, 1, got CPUs 0, 1, 2",
        "node 1: expected CPU 2, got no CPU",
        "node 1: expected 0 MiB of memory, got 1 MiB",
        "node 2: expected 64 MiB of memory, got 0 MiB",
    ]


def check(asked, *said):
    shape.check(asked, said, kernel="stock", where="console.log")


def test_sockets_cores_and_threads_are_compared_if_asked_for():
    plain = Topology(nodes=1, cpus_per_node=4, memory_per_node=64 * MIB)
    node = "node 0 cpus=0-3 memory_kib=65536 distances=10"
    check(plain, node, "cpus sockets=1 cores=4 threads=4")
    check(plain, node)
    asked = plain.model_copy(update={"threads": 2})
    check(asked, node, "cpus sockets=1 cores=2 threads=4")
    with pytest.raises(UserError, match="2 cores, 4 threads, got 1 socket, 4 cores, 4 threads"):
        check(asked, node, "cpus sockets=1 cores=4 threads=4")
    with pytest.raises(UserError, match="got no report"):
        check(asked, node)


def test_many_differences_are_not_all_listed():
    asked = Topology(nodes=40, memory_per_node=64 * MIB)
    result = [f"node {n} cpus={n} memory_kib=65536 distances=10*40" for n in range(40)]
    found = differences(*result, asked=asked)
    assert len(found) == 5
    assert found[-1] == "and 1556 more"


@pytest.mark.parametrize(
    "text", ["", "node", "node 0", "node x cpus=0", "node 0 cpus=- distances=1"]
)
def test_what_is_no_report_of_a_node_is_none(text):
    assert shape.parse(text) is None


def test_long_lists_are_read():
    node = shape.parse("node 3 cpus=0,2-4,9 memory_kib=1 distances=20*3,10,255*2")
    assert node == shape.Node(3, (0, 2, 3, 4, 9), 1024, (20, 20, 20, 10, 255, 255))
