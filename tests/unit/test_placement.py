"""Where guests go on a host, and threads that are really put there."""

import contextlib
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from test_doctor import give_host

from labctl.errors import HostError, UserError
from labctl.experiments.needs import Need, shortage
from labctl.guests.pinning import pin
from labctl.guests.placement import Placement, document, place
from labctl.lab.topology import Topology

GIB, MIB = 2**30, 2**20
GUEST = Topology(nodes=4, cpus_per_node=1, memory_per_node=GIB)


def with_(**keys):
    return Topology.model_validate(GUEST.model_dump() | keys)


@pytest.fixture
def host(tmp_path):
    """A host of 8 cores with two threads each, on two nodes."""
    return give_host(tmp_path, cpus=16, nodes=2, available_gib=16)


def test_every_vcpu_has_a_core_of_its_own_and_the_emulator_another(host):
    placement = place("g", GUEST, host)
    assert placement.vcpus == (8, 10, 12, 14)
    assert placement.emulator == (0, 1, 2, 3, 4, 5, 6, 7)
    assert placement.host_nodes == ()
    assert placement == place("other", GUEST, host)  # guests of a block share their CPUs


def test_vcpus_are_on_the_host_node_of_their_memory(host):
    placement = place("g", with_(host_nodes="auto"), host)
    assert placement.host_nodes == (0, 1, 0, 1)
    node_of = {cpu.number: cpu.node for cpu in host.cpus}
    assert tuple(node_of[cpu] for cpu in placement.vcpus) == (0, 1, 0, 1)
    assert len(set(placement.vcpus)) == 4
    assert place("g", with_(host_nodes=[1]), host).host_nodes == (1, 1, 1, 1)


def test_nodes_that_differ_are_placed_by_their_own_vcpus_and_memory(host):
    nodes = [{"cpus": 3, "memory": "1GiB"}, {"cpus": 1, "memory": 0}, {"cpus": 0, "memory": "9GiB"}]
    guest = Topology(nodes=nodes, host_nodes=[0, 1])
    placement = place("g", guest, host)
    assert placement.host_nodes == (0, 1, 0)
    node_of = {cpu.number: cpu.node for cpu in host.cpus}
    assert tuple(node_of[cpu] for cpu in placement.vcpus) == (0, 0, 0, 1)
    assert "10 GiB of host node 0" in shortage(Need("e", "g", 1, guest), host, (0, 1, 0))
    assert shortage(Need("e", "g", 1, guest), host, ()) == ""


def test_second_threads_are_used_only_where_cores_are_not_enough(host):
    placement = place("g", with_(nodes=12), host)
    assert set(range(0, 16, 2)) < set(placement.vcpus)
    assert len(placement.vcpus) == 12
    assert not set(placement.emulator) & set(placement.vcpus)


def test_without_enough_cpus_nothing_is_pinned(tmp_path):
    host = give_host(tmp_path, cpus=2)
    placement = place("g", GUEST, host)
    assert placement == Placement()
    result = document(GUEST, placement, host)
    assert (result["vcpus"], result["cores"], result["overcommitted"]) == (4, 2, True)
    assert result["pinned"] == []


def test_a_host_of_one_node_has_nothing_to_bind_to(tmp_path):
    assert place("g", with_(host_nodes="auto"), give_host(tmp_path)).host_nodes == ()


def test_cpus_that_are_named_are_taken_in_turn(host):
    placement = place("g", with_(pin=[3, 5]), host)
    assert placement.vcpus == (3, 5, 3, 5)
    assert not {3, 5} & set(placement.emulator)
    assert document(GUEST, placement, host)["overcommitted"]
    assert place("g", with_(pin=None), host) == Placement()


def test_what_the_host_lacks_is_the_users_mistake(host):
    with pytest.raises(UserError, match="CPU 99 is not available") as caught:
        place("big", with_(pin=[0, 99]), host)
    assert caught.value.where == "guests.big.pin"
    with pytest.raises(UserError, match="node 7 is not available"):
        place("big", with_(host_nodes=[7]), host)


def test_memory_is_counted_where_it_comes_from(host):
    three = Need("e", "g", 3, GUEST)
    assert shortage(three, host, ()) == ""
    assert "needs 20 GiB for its 5 guests, but only 16 GiB are free" in shortage(
        Need("e", "g", 5, GUEST), host, ()
    )
    assert "12 GiB of host node 1, but only 8 GiB are free" in shortage(three, host, (1, 1, 1, 1))
    assert shortage(three, host, (0, 1, 0, 1)) == ""


def test_hugepages_are_counted_by_their_pool(host):
    huge = Need("e", "g", 1, with_(hugepages=2 * MIB, memory_per_node=512 * MIB))
    assert shortage(huge, host, ()) == ""  # 1024 pages, and as many are free
    assert "2048 pages of 2MiB" in shortage(replace(huge, guests=2), host, ())
    assert "host node 0" in shortage(huge, host, (0, 0, 0, 0))
    giant = Need("e", "g", 1, with_(hugepages=GIB))
    assert "but only 0 pages of 1GiB are free" in shortage(giant, host, ())


@pytest.fixture
def sleepers():
    """Two threads of this process, as vCPUs' would be."""
    gate, ids = threading.Event(), []
    ready = threading.Barrier(3)

    def sleep():
        ids.append(threading.get_native_id())
        ready.wait(60)
        gate.wait(60)

    threads = [threading.Thread(target=sleep) for _ in range(2)]
    before = {}
    for path in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # another test's thread, at its end
            before[int(path.name)] = os.sched_getaffinity(int(path.name))
    for thread in threads:
        thread.start()
    ready.wait(60)
    yield dict(enumerate(ids))
    gate.set()
    for thread in threads:
        thread.join(60)
    for thread, cpus in before.items():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cpus)


def test_threads_are_pinned_and_the_others_kept_off(sleepers):
    usable = sorted(os.sched_getaffinity(0))
    first, last = usable[0], usable[-1]
    pin(sleepers, Placement((last, last), (first,)), "guest")
    assert [os.sched_getaffinity(thread) for thread in sleepers.values()] == [{last}, {last}]
    assert os.sched_getaffinity(threading.get_native_id()) == {first}


def test_a_cpu_that_is_not_there_is_reported(sleepers):
    with pytest.raises(HostError, match="cannot pin") as caught:
        pin(sleepers, Placement((4000, 4000)), "guest")
    assert "pin: none" in caught.value.hint


def test_threads_that_ended_are_no_error():
    pin({0: 2**22 - 1}, Placement((0,)), "guest")
