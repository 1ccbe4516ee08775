"""A host without memory: its OOM killer takes QEMU, or QEMU gets none. No kernel's fault."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from control_groups import enter, real_control_groups
from synthetic import World
from test_guest_folder import spec  # noqa: F401 - a fixture
from test_retries import Failing, good, whole
from test_runner import runner

from labctl.errors import BootFailed, GuestLost
from labctl.guests import endings
from labctl.guests.guest import Guest
from labctl.host import oom
from labctl.host.oom import OomWatch
from labctl.runs.store import Store
from labctl.status import HOST_FAULTS, GuestFault

GREEDY = "import sys; sys.stdin.readline(); x = bytearray(256 << 20); print(len(x))"
RECORD = "6,1201,{us},-;Memory cgroup out of memory: Killed process {pid} (qemu-system-x86) total"


@pytest.mark.parametrize(
    ("record", "is_found"),
    [
        (RECORD.format(us=60_000_000, pid=321), True),
        (
            "4,7,60000000,-;Out of memory: Killed process 321 (qemu) total-vm:9kB\n SUBSYSTEM=x",
            True,
        ),
        (RECORD.format(us=60_000_000, pid=3210), False),
        (RECORD.format(us=60_000_000, pid=32), False),
        (RECORD.format(us=1_000_000, pid=321), False),  # another process of this pid, before
        ("6,1,60000000,-;oom-kill:constraint=CONSTRAINT_MEMCG,task=qemu,pid=321", False),
        ("", False),
        ("6,1;Killed process 321 (qemu)", False),
        ("6,1,soon,-;Killed process 321 (qemu)", False),
    ],
)
def test_the_kernels_log_names_the_process_that_was_killed(record, is_found):
    assert bool(oom.killed(record, 321, since=55.0)) == is_found


def test_a_process_that_ends_otherwise_has_no_evidence():
    with subprocess.Popen(["sleep", "600"]) as child:
        watch = OomWatch.of(child.pid)
        child.kill()
    assert watch.evidence() == ""


@pytest.mark.parametrize("log", ["/dev/kmsg", "/nowhere"])
def test_the_real_oom_killer_is_told_by_the_log_or_by_the_group(monkeypatch, log):
    monkeypatch.setattr(oom, "_LOG", Path(log))
    if not os.access(log, os.R_OK) and log != "/nowhere":
        pytest.skip("the kernel's log is not readable here")
    with real_control_groups(memory=64 << 20) as groups:
        argv = [sys.executable, "-c", GREEDY]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, text=True) as child:
            enter(groups, child.pid)
            watch = OomWatch.of(child.pid)
            child.communicate("go\n", timeout=60)
        if child.returncode != -signal.SIGKILL:
            pytest.skip("the host swaps, or does not enforce the limit")
        found = watch.evidence()
    assert f"Killed process {child.pid} (" in found or "counts a new oom_kill" in found


def ending(status, **more):
    return endings.of_qemu(status, "no output", [], **more)


def test_an_oom_kill_of_qemu_is_the_hosts_fault():
    found = ending(-signal.SIGKILL, oom=lambda: "memory.events counts a new oom_kill")
    assert found.fault is GuestFault.HOST_OOM
    assert found.fault in HOST_FAULTS
    assert found.what == (
        "the host ran out of memory, and its OOM killer ended QEMU: "
        "memory.events counts a new oom_kill"
    )
    assert "reduce the memory of the guests" in found.hint


def test_the_end_of_another_labctls_qemu_may_be_the_oom_killers():
    assert ending(0, is_known=False, oom=lambda: "proof").fault is GuestFault.HOST_OOM
    console = ["[ 9.1] reboot: Power down"]
    found = endings.of_qemu(0, "no output", console, is_known=False, oom=lambda: "proof")
    assert found.fault is GuestFault.GUEST_SHUTDOWN


def test_a_kill_or_a_crash_without_evidence_is_not_guessed():
    assert ending(-signal.SIGKILL).fault is GuestFault.QEMU_KILLED
    assert ending(-signal.SIGSEGV, oom=lambda: "proof").fault is GuestFault.QEMU_CRASHED
    assert ending(1, oom=lambda: "proof").fault is GuestFault.QEMU_EXITED


@pytest.mark.parametrize(
    "output",
    [
        "qemu-system-x86_64: cannot set up guest memory 'm0': Cannot allocate memory",
        "qemu-system-x86_64: Insufficient free host memory pages available to allocate guest RAM",
    ],
)
def test_a_qemu_that_gets_no_memory_is_the_hosts_fault(output):
    found = endings.of_qemu(1, output, [])
    assert found.fault is GuestFault.HOST_OOM
    assert output in found.what


def test_a_guest_whose_qemu_the_real_oom_killer_takes_says_so(spec, tmp_path):  # noqa: F811
    with real_control_groups(memory=64 << 20) as groups:
        group = groups["memory"]
        (tmp_path / "bin" / "qemu-system-x86_64").write_text(
            f"#!/bin/sh\necho $$ > {group}/cgroup.procs\n"
            f"exec {sys.executable} -c 'x = bytearray(256 << 20)'\n"
        )
        with Guest(spec) as guest, pytest.raises(BootFailed) as caught:
            guest.wait_ready(60)
    if caught.value.fault == "guest-reset":
        pytest.skip("the host swaps, or does not enforce the limit")
    if not os.access("/dev/kmsg", os.R_OK):  # the group was entered after the start
        assert caught.value.fault == "qemu-killed"
        return
    assert caught.value.fault == "host-oom"
    assert "its OOM killer ended QEMU" in caught.value.what


def test_a_run_goes_on_and_counts_no_crash_of_the_kernel(tmp_path):
    def kill(guest):
        raise GuestLost("its OOM killer ended QEMU", fault=GuestFault.HOST_OOM)

    world = World()
    Failing(world, 1, fail=kill)
    runner(tmp_path, world).run()
    assert good(tmp_path).keys() == whole()
    (failed,) = [s for s in Store(tmp_path).samples() if s.status != "ok"]
    assert failed.fault == "host-oom"
