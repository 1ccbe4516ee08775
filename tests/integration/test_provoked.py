"""Faults of a kernel and of its host, provoked for real: each has its name.

The faults of the kernel come from its own LKDTM, which needs a build of its own: only with
--long. Those of the host and the triple fault need nothing but the usual kernel.
"""

import contextlib
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT

from labctl.errors import GuestHung, GuestLost, GuestSplat, HostError
from labctl.experiments import clocks
from labctl.guests.guest import Guest
from labctl.guests.prepare import prepare
from labctl.lab.load import load
from labctl.lab.topology import Topology
from labctl.testing.leases import locked

pytestmark = pytest.mark.kernels("stock")
TWO_CPUS = Topology(nodes=1, cpus_per_node=2, memory_per_node=256 << 20)
SECONDS = 120
PROVOKE = "echo {} > /sys/kernel/debug/provoke-crash/DIRECT"
LAB = """\
version: 1
state: {root}/.labctl
kernels:
  # Linux 6.5 and newer detect hard lockups without a PMU.
  provoke: {{source: debian:linux-source-6.12, kconfig: {kconfig}}}
"""


@pytest.fixture(scope="module")
def provoking(tmp_path_factory):
    """The lab of a kernel with LKDTM, prepared."""
    folder = tmp_path_factory.mktemp("provoke")
    kconfig = f"[{ROOT}/guest/kconfig/base.config, {ROOT}/tests/integration/provoke.config]"
    (folder / "lab.yaml").write_text(LAB.format(root=ROOT, kconfig=kconfig))
    with locked(ROOT / ".labctl" / "leases" / "prepare.lock"):
        return prepare(load(folder / "lab.yaml"), ["provoke"], lambda _: None)


@contextlib.contextmanager
def booted(prepared, kernel, folder):
    spec = prepared.spec(kernel, name=kernel, folder=folder / "guest", topology=TWO_CPUS)
    with Guest(spec) as guest:
        guest.wait_ready(300)
        yield guest


# The kernel's own faults: the fault's name, what to set up, and LKDTM's name of it.
FAULTS = {
    "oops": ("echo 0 > /proc/sys/kernel/panic_on_oops", "EXCEPTION"),
    "bug": ("echo 0 > /proc/sys/kernel/panic_on_oops", "BUG"),
    "warning": ("true", "WARNING"),
    "soft-lockup": ("echo 2 > /proc/sys/kernel/watchdog_thresh", "SOFTLOCKUP"),
    "hard-lockup": ("echo 2 > /proc/sys/kernel/watchdog_thresh", "HARDLOCKUP"),
    "rcu-stall": (
        "echo 0 > /proc/sys/kernel/watchdog; "
        "echo 5 > /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout",
        "SOFTLOCKUP",
    ),
    "hung-task": ("echo 3 > /proc/sys/kernel/hung_task_timeout_secs", "HUNG_TASK"),
}


@pytest.mark.long("a kernel with LKDTM is built")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_kernel_is_named(provoking, tmp_path, fault):
    setup, lkdtm = FAULTS[fault]
    with booted(provoking, "provoke", tmp_path) as guest:
        assert guest.run(setup, timeout_seconds=SECONDS).status == 0
        with pytest.raises(GuestSplat) as caught:
            guest.run(f"{PROVOKE.format(lkdtm)} & sleep {SECONDS}", timeout_seconds=2 * SECONDS)
        assert caught.value.fault == fault, caught.value
        assert caught.value.console_tail


HPET = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
# Bit 0 of 0xfed00010 lets the counter at 0xfed000f0 run, 10 ns each.
JUMP = f"""
echo hpet > {HPET} && sleep 1 && devmem 0xfed00010 32 2 &&
devmem 0xfed000f0 32 $(( ($(devmem 0xfed000f0 32) + 1000000000) & 0xffffffff )) &&
devmem 0xfed00010 32 3
"""


@pytest.mark.long("a kernel with LKDTM is built")
@pytest.mark.parametrize("way", ["forwards", "back"])
def test_a_clock_that_jumps_is_named(provoking, tmp_path, way):
    """The timer's counter is written, or the guest is paused for half a minute."""
    with booted(provoking, "provoke", tmp_path) as guest:
        began = time.monotonic()
        if way == "forwards":
            outcome = guest.run(JUMP, timeout_seconds=SECONDS)
        else:
            guest.qmp("stop")
            later = threading.Timer(33, lambda: guest.qmp("cont"))
            later.start()
            outcome = guest.run("sleep 1", timeout_seconds=SECONDS)
            later.join()
        assert outcome.status == 0, outcome
        with pytest.raises(GuestLost, match=f"jumped {way}") as caught:
            clocks.check(outcome.seconds, time.monotonic() - began)
        assert caught.value.fault == "clock-jump"


@pytest.mark.long("a kernel with LKDTM is built")
def test_a_serial_port_that_freezes_is_named(provoking, tmp_path):
    """With DLAB set, the registers of data are those of the baud rate: no byte passes."""
    with booted(provoking, "provoke", tmp_path) as guest:
        guest.be_patient(3.0)
        freeze = "printf '\\203' | dd of=/dev/port bs=1 seek=$((0x2fb)); sleep 99"
        with pytest.raises(GuestHung, match="QEMU runs, but") as caught:
            guest.run(freeze, timeout_seconds=SECONDS)
        assert caught.value.fault == "no-response"


@pytest.mark.topology(nodes=1, memory_per_node="256MiB")
def test_a_triple_fault_is_a_reset(guest):
    """The kernel's own way to reset by a triple fault: it loads an empty IDT and traps."""
    command = "echo triple > /sys/kernel/reboot/type && echo b > /proc/sysrq-trigger"
    with pytest.raises(GuestLost) as caught:
        guest.run(command, timeout_seconds=SECONDS)
    assert caught.value.fault == "guest-reset"


@pytest.mark.topology(nodes=1, memory_per_node="256MiB")
def test_the_oom_killer_of_the_host_takes_qemu(guest):
    """QEMU is moved into a control group with less memory than the guest then touches."""
    if not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("the kernel's log is not readable, and the group is entered after the start")
    with small_group(64 << 20) as group:
        (group / "cgroup.procs").write_text(str(guest._watchdog.machine.pid))
        with pytest.raises(GuestLost) as caught:
            guest.run("head -c 180m /dev/zero > /tmp/filled; sleep 9", timeout_seconds=SECONDS)
    assert caught.value.fault == "host-oom"
    assert "its OOM killer ended QEMU: the kernel's log has: " in caught.value.what


@contextlib.contextmanager
def small_group(most_bytes):
    """Make a control group with a limit of memory; skip if this host does not allow it."""
    v1 = Path("/sys/fs/cgroup/memory")
    group = (v1 if v1.is_dir() else Path("/sys/fs/cgroup")) / f"labctl-test-{os.getpid()}"
    try:
        group.mkdir()
        limit = "memory.limit_in_bytes" if v1.is_dir() else "memory.max"
        (group / limit).write_text(str(most_bytes))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group with a limit of memory: {error}")
    try:
        yield group
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
@pytest.mark.parametrize("what", ["bzimage", "initramfs"])
def test_an_image_damaged_after_its_build_is_not_booted(prepared, tmp_path, what, damage):
    spec = prepared.spec("stock", name="stock", folder=tmp_path / "guest", topology=TWO_CPUS)
    path = {"bzimage": spec.image.bzimage, "initramfs": spec.initramfs}[what]
    whole = path.read_bytes()
    half = len(whole) // 2
    flipped = whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]
    copy = tmp_path / path.name
    copy.write_bytes(whole[:half] if damage == "truncated" else flipped)
    files = [type(one)(copy, one.sha256) if one.path == path else one for one in spec.files]
    with pytest.raises(HostError, match="file changed: expected SHA-256") as caught:
        Guest(replace(spec, files=tuple(files))).__enter__()
    assert caught.value.where == str(copy)
    assert "labctl rebuilds damaged files" in caught.value.hint
    assert not (tmp_path / "guest").exists()
