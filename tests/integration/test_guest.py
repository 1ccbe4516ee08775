"""Properties of a guest. test_transports.py tests the transports."""

import json
import os
import signal
import subprocess
import threading
import time

import pytest

from labctl.errors import (
    GuestHung,
    GuestLost,
    GuestPanic,
    GuestSplat,
)
from labctl.guests.guest import State

pytestmark = [
    pytest.mark.kernels("stock"),
    pytest.mark.topology(nodes=2, memory_per_node="256MiB"),
]

# Eight processes of 128 MiB each in a guest of half a GiB.
_HUNGRY = """
for i in $(seq 8); do
  awk 'BEGIN { s = "x"; for (i = 0; i < 27; i++) s = s s; system("sleep 60") }' &
done
wait
"""


def test_a_paused_guest_does_not_run(shared_guest):
    shared_guest.pause()
    assert shared_guest.state is State.PAUSED
    assert shared_guest.qmp_status() == "paused"
    shared_guest.resume()
    assert shared_guest.run("true", timeout_seconds=20).status == 0


def test_a_panic_carries_the_console(guest):
    with pytest.raises(GuestPanic, match="sysrq") as caught:
        guest.run("echo c > /proc/sysrq-trigger", timeout_seconds=60)
    tail = caught.value.console_tail
    assert 10 < len(tail) <= 100
    assert any("Kernel panic - not syncing" in line for line in tail)
    assert (guest.spec.folder / "console.log").stat().st_size > 1000


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [x:1]", "soft-lockup"),
        ("INFO: task x:1 blocked for more than 60 seconds.", "hung-task"),
        ("WARNING: CPU: 0 PID: 1 at mm/x.c:1 x+0x0/0x1", "warning"),
        ("BUG: Bad page state in process x  pfn:1", "bad-page"),
    ],
)
def test_what_the_kernel_complains_of_is_a_typed_error(shared_guest, text, kind):
    with pytest.raises(GuestSplat) as caught:
        shared_guest.run(f"echo '{text}' > /dev/kmsg; sleep 3", timeout_seconds=60)
    assert caught.value.kind == kind
    assert text in caught.value.what
    assert shared_guest.run("echo goes on", timeout_seconds=60).text == "goes on\n"


def test_what_a_program_does_is_not_the_kernels(shared_guest, tmp_path):
    """A faulting program prints kernel-like messages to the console."""
    source = tmp_path / "fault.c"
    source.write_text("void _start(void) { *(volatile int *)8 = 1; }\n")
    fault = tmp_path / "fault"
    subprocess.run(["gcc", "-static", "-nostdlib", "-o", fault, source], check=True)
    shared_guest.put(fault, "/tmp/BUG: x")
    result = "Internal error: test 3 of 7 failed"
    words = f"chmod +x '/tmp/BUG: x'; '/tmp/BUG: x'; echo {result} > /dev/console; sleep 1"
    assert shared_guest.run(words, timeout_seconds=60).status == 0
    console = "\n".join(shared_guest.console_tail())
    assert "] BUG: x[" in console
    assert result in console


def test_a_warning_is_seen_however_quiet_the_console_is(shared_guest):
    text = "WARNING: CPU: 0 PID: 1 at mm/x.c:1 x+0x0/0x1"
    with pytest.raises(GuestSplat):
        shared_guest.run(f"dmesg -n 1; echo '<4>{text}' > /dev/kmsg; sleep 3", timeout_seconds=60)


def test_what_a_program_leaves_on_a_line_hides_no_report(shared_guest):
    text = "BUG: Bad page state in process x  pfn:1"
    words = f"printf '12 %%' > /dev/console; sleep 1; echo '<1>{text}' > /dev/kmsg; sleep 3"
    with pytest.raises(GuestSplat) as caught:
        shared_guest.run(words, timeout_seconds=60)
    assert caught.value.kind == "bad-page"


def test_running_out_of_memory_is_a_splat(guest):
    with pytest.raises(GuestSplat) as caught:
        guest.run(_HUNGRY, timeout_seconds=300)
    assert caught.value.kind == "oom-kill"


def test_the_death_of_qemu_is_reported_at_once(guest):
    killer = threading.Timer(2, os.kill, (guest._watchdog.machine.pid, signal.SIGKILL))
    killer.start()
    began = time.monotonic()
    with pytest.raises(GuestLost):
        guest.run("sleep 1000", timeout_seconds=100)
    assert time.monotonic() - began < 20


def test_a_stopped_qemu_is_hung_at_every_line(guest):
    guest.be_patient(3.0)
    os.kill(guest._watchdog.machine.pid, signal.SIGSTOP)
    with pytest.raises(GuestHung, match="monitor did not answer"):
        guest.qmp_status()
    with pytest.raises(GuestHung, match="no response"):
        guest.run("true", timeout_seconds=60)
    os.kill(guest._watchdog.machine.pid, signal.SIGCONT)


def test_two_guests_share_nothing(shared_guest, guest):
    pair = (shared_guest, guest)
    ids = {each.read("/proc/sys/kernel/random/boot_id").strip() for each in pair}
    assert ids == {each.boot_id for each in pair}
    assert len(ids) == 2


def test_memory_on_lists_of_cpus_is_free_again(shared_guest):
    lists = "/proc/sys/vm/percpu_pagelist_high_fraction"  # a node's memory over this number
    size = 64 << 20
    try:
        freebench = f"freebench --op munmap --size {size} --threads 2 --placement interleave"
        measured = json.loads(shared_guest.output(f"echo 8 > {lists}; {freebench} --thp never"))
    finally:
        shared_guest.output(f"echo 0 > {lists}")
    memfree = measured["memfree_bytes"]
    assert memfree["before"] - memfree["settled"] > size // 8  # MemFree alone would wait for it
    assert measured["memory_back_nanoseconds"] is not None
