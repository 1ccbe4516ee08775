"""The real placement of guests on the host, and `labctl doctor`'s report of it."""

import os
import re
from pathlib import Path

import pytest
from program import BOOT_SECONDS

from labctl.guests import probe
from labctl.guests.guest import Guest
from labctl.lab.topology import Topology

MIB = 2**20


def process(thread):
    status = Path(f"/proc/{thread}/status").read_text()
    return Path("/proc", re.search(r"^Tgid:\s*(\d+)", status, re.MULTILINE)[1])


def test_a_guest_is_where_the_lab_puts_it(prepared, tmp_path):
    if probe.failure("tcg", "memory-backend-ram,policy=bind,host-nodes=0", timeout_seconds=60):
        pytest.skip("memory cannot be bound here")
    usable = sorted(os.sched_getaffinity(0))
    shape = Topology(
        nodes=4, memory_per_node=192 * MIB, prealloc=True, host_nodes=(0,), pin=tuple(usable[-1:])
    )
    spec = prepared.spec("stock", name="placed", folder=tmp_path, topology=shape, pinned=True)
    with Guest(spec) as guest:
        guest.wait_ready(BOOT_SECONDS)
        threads = guest.vcpu_threads()
        folder = process(threads[0])
        assert sorted(threads) == [0, 1, 2, 3]
        assert [os.sched_getaffinity(t) for t in threads.values()] == [{usable[-1]}] * 4
        others = {int(path.name) for path in (folder / "task").iterdir()} - set(threads.values())
        assert others
        if usable[:-1]:
            assert all(os.sched_getaffinity(thread) == set(usable[:-1]) for thread in others)
        resident = re.search(r"VmRSS:\s*(\d+) kB", (folder / "status").read_text())
        assert int(resident[1]) * 1024 > shape.memory_bytes
        bound = [
            line for line in (folder / "numa_maps").read_text().splitlines() if "bind:" in line
        ]
        assert len(bound) >= 4
        assert guest.run("nproc", timeout_seconds=60).text == "4\n"


def test_guests_of_up_are_not_pinned(prepared, tmp_path):
    shape = prepared.lab.guests["numa4"].model_copy(update={"pin": (0,)})
    spec = prepared.spec("stock", name="up", folder=tmp_path, topology=shape)
    assert spec.placement.vcpus == ()


def test_doctor_agrees_with_a_run(labctl, prepared):
    document = labctl.json("doctor", "--json")
    found = {one["name"]: one["status"] for one in document["diagnoses"]}
    assert found["qemu"] == found["tcg"] == "ok"
    assert (found["kvm"] == "ok") == (prepared.accel == "kvm")
