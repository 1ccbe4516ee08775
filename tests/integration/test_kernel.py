"""Properties of the patched kernels: topology, memory, tunables."""

import json

import pytest
from workers import time_by_cpus, workers

from labctl.errors import BadOutput, TunableRefused
from labctl.verify import memory

# With huge pages, watermarks are high, and so many pages freed by several CPUs stay on
# per-CPU lists that MemFree is useless. Lists and ranges are small.
SETTINGS = {"thp": "never", "max_active": 8, "batch_pages": "8Ki"}
SETTINGS |= {"unmap_max_active": 8, "range_pages": "8Ki"}
pytestmark = [
    pytest.mark.kernels("stock", "parallel-free", "parallel-unmap"),
    pytest.mark.tunables(**SETTINGS),
]
NODE = "/sys/devices/system/node"
SIZE_BYTES = 512 << 20
THP = "/sys/kernel/mm/transparent_hugepage/enabled"
# The tunable that disables a series with 0; its usual value; one too large for 512 MiB.
SWITCHES = {
    "parallel-free": ("/sys/kernel/debug/parallel_free/batch_pages", "8192", "262144"),
    "parallel-unmap": ("/sys/kernel/debug/parallel_unmap/range_pages", "8192", "131072"),
}
WORKQUEUES = "/sys/devices/virtual/workqueue"
SCENARIOS = ("exit", "kill", "memcg", "oom", "hotplug")
WRONG = {
    "parallel-free": {
        "max_active": ["0", "513", "-1", "many", str(2**40)],
        "batch_pages": ["-1", "some", str(2**64)],
    },
    "parallel-unmap": {
        "max_active": ["0", "513", "-1", "many", str(2**40)],
        "range_pages": ["511", "-512", "some", str(2**40)],  # 511: a page table would be shared
    },
}


def test_nodes_cpus_memory_and_distances_are_as_asked(shared_guest):
    paths = [f"{NODE}/node{n}/{file}" for n in range(4) for file in ("cpulist", "distance")]
    meminfo = [f"{NODE}/node{n}/meminfo" for n in range(4)]
    found = shared_guest.exchange({}, [f"{NODE}/online", *paths, *meminfo])
    assert found.pop(f"{NODE}/online") == "0-3\n"
    for n in range(4):
        assert found[f"{NODE}/node{n}/cpulist"] == f"{n}\n"
        distances = ["10" if n == other else "21" for other in range(4)]
        assert found[f"{NODE}/node{n}/distance"].split() == distances
        kibibytes = int(found[meminfo[n]].split("MemTotal:")[1].split()[0])
        assert 0.8 * 512 < kibibytes / 1024 <= 512


def test_huge_pages_are_off(shared_guest, measure):
    assert "[never]" in shared_guest.read(THP)
    assert measure("give-back").measurements["huge_bytes"] == 0


@pytest.mark.parametrize("op", ["free", "munmap", "exit"])
def test_all_memory_comes_back_and_workers_take_a_part(shared_guest, measure, kernel, op):
    measured = measure("give-back", op=op)
    assert measured.value > 0
    pages = measured.measurements["pages_per_node"]
    assert sum(pages) >= SIZE_BYTES // 4096
    assert max(pages) - min(pages) < 0.02 * sum(pages)
    free = measured.measurements["memfree_bytes"]
    assert abs(free["before"] - free["settled"]) <= 0.01 * free["before"]
    if kernel != "stock":
        assert measured.counters["handovers"] > 0
        assert 0 < measured.counters["pages_handed"] <= sum(pages) + 1


@pytest.mark.kernels(*SWITCHES)
def test_a_series_ignores_small_sizes_and_can_be_switched_off(shared_guest, measure, kernel):
    file, usual, large = SWITCHES[kernel]
    try:
        for value in (large, "0"):
            shared_guest.write(file, value)
            assert measure("give-back").counters["handovers"] == 0
    finally:
        shared_guest.write(file, usual)
    assert measure("give-back", size="30MiB").counters["handovers"] == 0
    assert measure("give-back").counters["handovers"] > 0


@pytest.mark.kernels(*SWITCHES)
@pytest.mark.parametrize("op", ["munmap", "exit"])
def test_workers_leave_isolated_cpus_alone(shared_guest, measure, op):
    assert_workers_obey(f"{WORKQUEUES}/cpumask", shared_guest, measure, op)


def assert_workers_obey(mask, shared_guest, measure, op):
    usual = shared_guest.read(mask).strip()
    shared_guest.write(mask, "3")
    try:
        before = workers(shared_guest)
        assert measure("give-back", op=op).counters["handovers"] > 0
        on, off = time_by_cpus(before, workers(shared_guest), {0, 1})
    finally:
        shared_guest.write(mask, usual)
    assert on > 0
    assert off <= 0.2 * on  # of other workqueues


@pytest.mark.kernels(*WRONG)
def test_a_tunable_rejects_invalid_values(shared_guest, kernel):
    folder = SWITCHES[kernel][0].rpartition("/")[0]
    for file, values in WRONG[kernel].items():
        before = shared_guest.read(f"{folder}/{file}")
        for value in values:
            with pytest.raises(TunableRefused, match=file):
                shared_guest.write(f"{folder}/{file}", value)
        assert shared_guest.read(f"{folder}/{file}") == before
    for counter in ("handovers", "pages_handed"):
        with pytest.raises(TunableRefused, match=counter):
            shared_guest.write(f"{folder}/{counter}", "0")


def test_the_kernels_own_tunables_reject_invalid_values(shared_guest):
    for value in ("", "sometimes", "-1", "9" * 40):
        with pytest.raises(TunableRefused, match="enabled"):
            shared_guest.write(THP, value)
    assert "[never]" in shared_guest.read(THP)


@pytest.mark.kernels("stock")
def test_a_kernel_without_the_series_has_no_tunable(shared_guest):
    for file, _, _ in SWITCHES.values():
        with pytest.raises(TunableRefused, match="no such file"):
            shared_guest.write(file, "1")
        with pytest.raises(BadOutput):
            shared_guest.read(file)


def test_caches_are_reclaimed(shared_guest):
    def reclaimable():
        return int(shared_guest.read("/proc/meminfo").split("SReclaimable:")[1].split()[0])

    shared_guest.write("/proc/sys/vm/drop_caches", "2")
    before = reclaimable()
    # sysfs caches negative lookups.
    names = "i=0; while [ $i -lt 20000 ]; do [ -e /sys/no-$i ]; i=$((i + 1)); done; true"
    assert shared_guest.run(names, timeout_seconds=300).status == 0
    grown = reclaimable() - before
    assert grown > 2000  # KiB
    # Recently used entries are spared at first.
    for _ in range(4):
        shared_guest.write("/proc/sys/vm/drop_caches", "2")
    assert reclaimable() < before + grown / 2


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_memory_is_right_while_processes_end_in_every_way(shared_guest, scenario):
    shared_guest.tolerated = frozenset({"oom-kill"})
    before = memory.unaccounted_bytes(shared_guest)
    argv = ["integrity", scenario, "--seconds", "2"]
    outcome = shared_guest.run(argv, timeout_seconds=200)
    assert outcome.status == 0, outcome.text
    result = json.loads(outcome.text.splitlines()[-1])
    assert result["foreign_words"] == 0
    assert result["rounds"] > 0
    tolerated = memory.total_bytes(shared_guest) // 100
    assert memory.lost_bytes(shared_guest, before, tolerated) <= tolerated
    assert shared_guest.read("/sys/devices/system/cpu/online") == "0-3\n"
    assert {complaint.kind for complaint in shared_guest.console.complaints} <= {"oom-kill"}
