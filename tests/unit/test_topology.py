import itertools

from labctl.arch import ARM64, X86_64
from labctl.guests.topology import (
    best_initiator,
    machine_options,
    memory_backend,
    qemu_arguments,
)
from labctl.lab.topology import Distances, Topology

MIB = 2**20


def values(words, option):
    return [b for a, b in itertools.pairwise(words) if a == option]


def test_every_node_has_its_own_memory_and_cpus():
    words = qemu_arguments(Topology(nodes=2, cpus_per_node=3, memory_per_node=512 * MIB))
    assert values(words, "-m") == ["1024M"]
    assert values(words, "-smp") == ["6,sockets=2,cores=3,threads=1"]
    assert values(words, "-object") == [
        "memory-backend-ram,id=ram0,size=512M",
        "memory-backend-ram,id=ram1,size=512M",
    ]
    assert values(words, "-numa")[:2] == [
        "node,nodeid=0,cpus=0-2,memdev=ram0",
        "node,nodeid=1,cpus=3-5,memdev=ram1",
    ]


def test_memory_is_as_the_guest_asks_for_it():
    plain = Topology(nodes=1, memory_per_node=512 * MIB)
    assert memory_backend(plain, 0, None) == "memory-backend-ram,id=ram0,size=512M"
    ready = plain.model_copy(update={"prealloc": True, "nodes": 4})
    assert memory_backend(ready, 1, None) == (
        "memory-backend-ram,id=ram1,size=512M,prealloc=on,prealloc-threads=4"
    )
    huge = plain.model_copy(update={"hugepages": 2 * MIB})
    assert memory_backend(huge, 0, 3) == (
        "memory-backend-memfd,id=ram0,size=512M,hugetlb=on,hugetlbsize=2M,"
        "prealloc=on,prealloc-threads=1,host-nodes=3,policy=bind"
    )


def test_each_node_is_bound_to_its_host_node():
    words = qemu_arguments(Topology(nodes=3), (0, 1, 0))
    bound = [word.rpartition("host-nodes=")[2] for word in values(words, "-object")]
    assert bound == ["0,policy=bind", "1,policy=bind", "0,policy=bind"]


def test_remote_distance_is_given_for_all_pairs():
    words = qemu_arguments(Topology(nodes=3, distances=Distances(remote=21)))
    distances = [word for word in values(words, "-numa") if word.startswith("dist")]
    assert len(distances) == 9
    assert "dist,src=0,dst=0,val=10" in distances
    assert "dist,src=2,dst=1,val=21" in distances


def test_a_matrix_may_be_asymmetric():
    matrix = ((10, 20), (30, 10))
    words = qemu_arguments(Topology(nodes=2, distances=Distances(matrix=matrix)))
    assert "dist,src=0,dst=1,val=20" in words
    assert "dist,src=1,dst=0,val=30" in words


def test_nodes_may_lack_cpus_or_memory():
    nodes = [
        {"cpus": 2, "memory": 128 * MIB},
        {"cpus": 1, "memory": 0},
        {"cpus": 0, "memory": "1GiB"},
    ]
    words = qemu_arguments(Topology(nodes=nodes), (0, 1, 2))
    assert values(words, "-m") == ["1152M"]
    assert values(words, "-smp") == ["3,sockets=3,cores=1,threads=1"]
    assert values(words, "-object") == [
        "memory-backend-ram,id=ram0,size=128M,host-nodes=0,policy=bind",
        "memory-backend-ram,id=ram2,size=1024M,host-nodes=2,policy=bind",
    ]
    assert values(words, "-numa")[:3] == [
        "node,nodeid=0,cpus=0-1,memdev=ram0",
        "node,nodeid=1,cpus=2",
        "node,nodeid=2,memdev=ram2",
    ]


def test_no_socket_is_on_two_nodes():
    nodes = [{"cpus": cpus, "memory": "64MiB"} for cpus in (4, 2, 0)]
    words = qemu_arguments(Topology(nodes=nodes))
    assert values(words, "-smp") == ["6,sockets=3,cores=2,threads=1"]


def test_sockets_cores_and_threads():
    words = qemu_arguments(Topology(nodes=2, cpus_per_node=4, threads=2))
    assert values(words, "-smp") == ["8,sockets=2,cores=2,threads=2"]
    assert values(words, "-numa")[:2] == [
        "node,nodeid=0,cpus=0-3,memdev=ram0",
        "node,nodeid=1,cpus=4-7,memdev=ram1",
    ]


def test_an_emulated_cpu_tells_linux_its_threads():
    assert X86_64.cpu(1) == "max,-erms"
    assert X86_64.cpu(2) == "max,-erms,vendor=GenuineIntel"
    assert ARM64.cpu(2) == ARM64.cpu(1)


def test_one_node_is_a_numa_node_too():
    words = qemu_arguments(Topology(nodes=1, memory_per_node=64 * MIB))
    assert "node,nodeid=0,cpus=0,memdev=ram0" in words


TIERS = Topology(
    nodes=[
        {"cpus": 2, "memory": "128MiB"},
        {"cpus": 1, "memory": "128MiB"},
        {"cpus": 0, "memory": "1GiB"},
    ],
    latency=[["80ns", "140ns", "0.25us"], ["140ns", "80ns", "250ns"]],
    bandwidth=["40GiB/s", "40GiB/s", "8GiB/s"],
)


def hmat(words, kind):
    found = {}
    for word in values(words, "-numa"):
        keys = dict(part.split("=") for part in word.split(",")[1:] if "=" in part)
        if word.startswith("hmat-lb,") and keys["data-type"] == f"access-{kind}":
            assert keys["hierarchy"] == "memory"
            found[int(keys["initiator"]), int(keys["target"])] = keys[kind]
    return found


def test_latency_and_bandwidth_are_told_from_each_node_with_cpus_to_each_node():
    words = qemu_arguments(TIERS)
    assert hmat(words, "latency") == {
        (0, 0): "80", (0, 1): "140", (0, 2): "250", (1, 0): "140", (1, 1): "80", (1, 2): "250",
    }  # fmt: skip
    assert hmat(words, "bandwidth") == {
        (i, j): "8192M" if j == 2 else "40960M" for i in (0, 1) for j in (0, 1, 2)
    }
    nodes = [word for word in values(words, "-numa") if word.startswith("node")]
    # Both nodes with CPUs are equally near to the third: Linux finds out which are.
    assert ["initiator" in node for node in nodes] == [True, True, False]
    assert nodes[1].endswith("memdev=ram1,initiator=1")
    assert machine_options(TIERS) == ",hmat=on"


def test_the_nearest_node_with_cpus_is_the_initiator_of_memory():
    far = TIERS.model_copy(update={"latency": ((80, 140, 300), (140, 80, 250))})
    assert [best_initiator(far, node) for node in range(3)] == [0, 1, 1]
    wide = far.model_copy(update={"latency": None, "bandwidth": ((9, 8, 7), (8, 9, 6))})
    assert [best_initiator(wide, node) for node in range(3)] == [0, 1, 0]


def test_nothing_is_told_of_memory_that_lab_yaml_does_not_describe():
    words = qemu_arguments(Topology(nodes=2))
    assert not any("hmat" in word or "initiator" in word or "maxmem" in word for word in words)
    assert machine_options(Topology(nodes=2)) == ""
    assert not {"latency", "bandwidth", "swap", "disks"} & Topology(nodes=2).model_dump().keys()


def test_hotplugged_memory_is_a_dimm_of_its_node():
    nodes = [
        {"cpus": 1, "memory": "128MiB", "hotplug": "256MiB"},
        {"cpus": 0, "memory": 0, "hotplug": {"memory": "1GiB", "state": "online_movable"}},
    ]
    asked = Topology(nodes=nodes, hugepages="2MiB")
    words = qemu_arguments(asked, (0, 1))
    assert values(words, "-m") == ["128M,slots=2,maxmem=1408M"]
    assert values(words, "-device") == [
        "pc-dimm,id=dimm0-device,memdev=dimm0,node=0",
        "pc-dimm,id=dimm1-device,memdev=dimm1,node=1",
    ]
    huge = "hugetlb=on,hugetlbsize=2M,prealloc=on,prealloc-threads=1"
    assert values(words, "-object")[1:] == [
        f"memory-backend-memfd,id=dimm0,size=256M,{huge},host-nodes=0,policy=bind",
        f"memory-backend-memfd,id=dimm1,size=1024M,{huge},host-nodes=1,policy=bind",
    ]
    assert "node,nodeid=1" in words
    assert (asked.boot_memory_bytes, asked.memory_bytes) == (128 * MIB, 1408 * MIB)
    assert asked.nodes_told == "384MiB + 1GiB"
    assert Topology.model_validate(asked.model_dump(mode="json")) == asked
