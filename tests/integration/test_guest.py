"""What a guest is. What its line can take, test_transports.py asks of every transport."""

import json
import os
import signal
import threading
import time

import pytest
from program import BOOT_SECONDS

from labctl.errors import (
    BadOutput,
    GuestLost,
    GuestPanic,
    GuestSplat,
    KnobRefused,
)
from labctl.guests.guest import Guest, State

KERNELS = ("stock", "parallel-free")
KNOBS = "/sys/kernel/debug/parallel_free"
THP = "/sys/kernel/mm/transparent_hugepage/enabled"

# Sixteen processes of half a GiB each in a guest of six.
_HUNGRY = """
for i in $(seq 16); do
  awk 'BEGIN { s = "x"; for (i = 0; i < 29; i++) s = s s; system("sleep 60") }' &
done
wait
"""


@pytest.fixture(params=KERNELS)
def guest(request, guests):
    return guests[request.param]


def test_four_nodes_are_online_at_the_configured_distances(guest):
    assert guest.read("/sys/devices/system/node/online").strip() == "0-3"
    rows = [guest.read(f"/sys/devices/system/node/node{n}/distance").split() for n in range(4)]
    assert rows == [["10" if i == j else "21" for j in range(4)] for i in range(4)]


def test_every_node_has_its_cpu_and_memory(guest):
    for node in range(4):
        assert guest.read(f"/sys/devices/system/node/node{node}/cpulist").strip() == str(node)
        total = guest.read(f"/sys/devices/system/node/node{node}/meminfo")
        mebibytes = int(total.split("MemTotal:")[1].split()[0]) / 1024
        assert 1300 < mebibytes <= 1536


def test_memory_is_back_after_a_repetition(guest):
    guest.write(THP, "never")
    assert "[never]" in guest.read(THP)
    argv = ["freebench", "--op", "free", "--size", "2GiB", "--placement", "interleave"]
    outcome = guest.run([*argv, "--threads", "4", "--thp", "never"], timeout_seconds=300)
    assert outcome.status == 0, outcome.stderr
    measured = json.loads(outcome.stdout)
    pages = measured["pages_per_node"]
    assert sum(pages) >= 2 * 2**30 // 4096
    assert max(pages) - min(pages) < 0.02 * sum(pages)
    before, settled = (measured["memfree_bytes"][when] for when in ("before", "settled"))
    assert abs(before - settled) <= 0.01 * before
    assert measured["elapsed_nanoseconds"] > 0


def test_the_exit_of_a_process_is_measured(guest):
    argv = ["freebench", "--op", "exit", "--size", "512MiB", "--placement", "interleave"]
    outcome = guest.run([*argv, "--threads", "2"], timeout_seconds=300)
    assert outcome.status == 0, outcome.stderr
    assert json.loads(outcome.stdout)["elapsed_nanoseconds"] > 0


def test_the_series_hands_over_and_can_be_switched_off(guests):
    guest = guests["parallel-free"]
    argv = ["freebench", "--op", "free", "--size", "512MiB", "--placement", "interleave"]

    def handed_over(batch_pages):
        guest.write(f"{KNOBS}/batch_pages", str(batch_pages))
        before = int(guest.read(f"{KNOBS}/handovers"))
        assert guest.run(argv, timeout_seconds=300).status == 0
        return int(guest.read(f"{KNOBS}/handovers")) - before

    assert handed_over(16384) >= 4
    assert handed_over(0) == 0
    assert handed_over(262144) == 0  # more than the pages of 512 MiB
    guest.write(f"{KNOBS}/batch_pages", "262144")


def test_a_knob_refuses_what_makes_no_sense(guests):
    guest = guests["parallel-free"]
    for knob, value in (("max_active", 0), ("max_active", 10**6), ("batch_pages", -1)):
        before = guest.read(f"{KNOBS}/{knob}")
        with pytest.raises(KnobRefused, match=knob):
            guest.write(f"{KNOBS}/{knob}", str(value))
        assert guest.read(f"{KNOBS}/{knob}") == before
    with pytest.raises(KnobRefused, match="no such file"):
        guests["stock"].write(f"{KNOBS}/max_active", "1")
    with pytest.raises(BadOutput):
        guests["stock"].read(f"{KNOBS}/max_active")


def test_a_paused_guest_does_not_run(guests):
    guest = guests["stock"]
    guest.pause()
    assert guest.state is State.PAUSED
    assert guest.qmp_status() == "paused"
    guest.resume()
    assert guest.run("true", timeout_seconds=20).status == 0


def test_a_panic_carries_the_console(specs):
    with Guest(specs("stock")) as guest:
        guest.wait_ready(BOOT_SECONDS)
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
def test_what_the_kernel_complains_of_is_a_typed_error(guests, text, kind):
    guest = guests["stock"]
    with pytest.raises(GuestSplat) as caught:
        guest.run(f"echo '{text}' > /dev/kmsg; sleep 3", timeout_seconds=60)
    assert caught.value.kind == kind
    assert text in caught.value.what
    assert guest.run("echo goes on", timeout_seconds=60).text == "goes on\n"


def test_running_out_of_memory_is_a_splat(specs):
    with Guest(specs("parallel-free")) as guest:
        guest.wait_ready(BOOT_SECONDS)
        with pytest.raises(GuestSplat) as caught:
            guest.run(_HUNGRY, timeout_seconds=300)
    assert caught.value.kind == "oom-kill"


def test_the_death_of_qemu_is_told_at_once(specs):
    with Guest(specs("stock")) as guest:
        guest.wait_ready(BOOT_SECONDS)
        killer = threading.Timer(2, os.kill, (guest._machine.pid, signal.SIGKILL))
        killer.start()
        began = time.monotonic()
        with pytest.raises(GuestLost):
            guest.run("sleep 1000", timeout_seconds=100)
        assert time.monotonic() - began < 20


def test_two_guests_share_nothing(guests):
    ids = {guest.read("/proc/sys/kernel/random/boot_id").strip() for guest in guests.values()}
    assert ids == {guest.boot_id for guest in guests.values()}
    assert len(ids) == 2
