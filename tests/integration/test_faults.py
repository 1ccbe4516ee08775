"""Faults of guests, injected for real: each is named, and a run goes on with a fresh boot."""

import json
import os
import signal
from dataclasses import replace

import pytest
from program import wait_for

from labctl.errors import BootFailed, GuestHung, GuestLost, GuestPanic
from labctl.guests.guest import Guest
from labctl.lab.topology import Topology

pytestmark = [
    pytest.mark.kernels("stock"),
    pytest.mark.topology(nodes=1, memory_per_node="256MiB"),
]
SECONDS = 60


def fault_of(guest, command, error, match):
    with pytest.raises(error, match=match) as caught:
        guest.run(command, timeout_seconds=SECONDS)
    return caught.value.fault


def test_faults_that_a_guest_survives_and_one_that_it_does_not(guest):
    """One boot for several faults; each is seen by itself."""
    guest.be_patient(3.0)
    # A clock that is set changes neither the times of labctl nor the state of the guest.
    for date in ("2035-01-01 00:00", "2001-01-01 00:00"):
        outcome = guest.run(f"date -s '{date}'; sleep 1", timeout_seconds=SECONDS)
        assert outcome.status == 0
        assert 0.9 < outcome.seconds < 30

    banner = "echo '<5>Linux version 6.1.0 (a second one)' > /dev/kmsg; sleep 3"
    assert fault_of(guest, banner, GuestLost, "guest rebooted") == "rebooted"
    assert any("a second one" in line for line in guest.console_tail())

    guest.qmp("stop")
    assert fault_of(guest, "true", GuestHung, "the guest is paused") == "guest-paused"
    guest.qmp("cont")

    most = guest.console.most_bytes
    guest.console.most_bytes = guest.console.bytes_seen + 100_000
    flood = "yes this is one line of a flood > /dev/console"
    assert fault_of(guest, flood, GuestLost, "console log is larger") == "console-flood"
    guest.console.most_bytes = most
    guest.run("killall yes; true", timeout_seconds=SECONDS)

    stop = "kill -STOP $PPID; sleep 9"  # of the agent
    assert fault_of(guest, stop, GuestHung, "QEMU runs, but") == "no-response"

    os.kill(guest._watchdog.machine.pid, signal.SIGSTOP)
    assert fault_of(guest, "true", GuestHung, "QEMU is stopped") == "qemu-stopped"


def test_a_panic_that_does_not_reboot(guest):
    command = "echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger"
    assert fault_of(guest, command, GuestPanic, "sysrq") == "panic"


@pytest.mark.parametrize(
    ("command", "match", "fault"),
    [
        pytest.param(
            "echo b > /proc/sysrq-trigger", "kernel reset the machine", "guest-reset",
            marks=pytest.mark.long("the next case is of the same kind"),
        ),
        ("reset", "its kernel printed nothing", "guest-reset"),
        pytest.param(
            "crash", "was killed by SIGSEGV", "qemu-crashed",
            marks=pytest.mark.long("of the same kind"),
        ),
        pytest.param(
            "poweroff -f", "powered off", "guest-shutdown",
            marks=pytest.mark.long("of the same kind"),
        ),
    ],
)  # fmt: skip
def test_a_guest_that_ends_says_how(guest, command, match, fault):
    if command == "reset":  # as after a triple fault: the kernel has no time to say anything
        guest.monitor("system_reset")
        command = "sleep 9"
    elif command == "crash":
        os.kill(guest._watchdog.machine.pid, signal.SIGSEGV)
        command = "true"
    assert fault_of(guest, command, GuestLost, match) == fault


def test_a_guest_that_does_not_boot_in_time(prepared, tmp_path):
    """The kernel runs, but no init reports that it is ready."""
    spec = prepared.spec(
        "stock", name="stock", folder=tmp_path / "guest", topology=Topology(nodes=1)
    )
    spec = replace(spec, command_line=f"{spec.command_line} rdinit=/bin/sh")
    with Guest(spec) as guest, pytest.raises(BootFailed, match="boot timed out") as caught:
        guest.wait_ready(3)
    assert caught.value.fault == "boot-timeout"


@pytest.mark.xdist_group("measuring")  # runs on one host wait for each other
def test_a_run_goes_on_with_a_fresh_boot(labctl):
    """QEMU is killed in the first block: the same repetitions are measured, and one failed."""
    text = (labctl.folder / "lab.yaml").read_text()
    (labctl.folder / "lab.yaml").write_text(text.replace("repetitions: 2", "repetitions: 1"))
    process = labctl.start("run", "tiny")
    try:
        # All warm-ups come first, so that this guest has still a repetition to do.
        wait_for(lambda: len(labctl.samples()) >= 1, 240, "a sample")
        (victim,) = [pid for pid in labctl.guests_running() if is_guest(pid, "parallel-free")]
        os.kill(victim, signal.SIGKILL)
        process.wait(240)
    finally:
        process.kill()
    samples = [json.loads(line) for line in labctl.samples()]
    (failed,) = [s for s in samples if s["status"] != "ok"]
    assert (failed["status"], failed["fault"]) == ("lost", "qemu-killed")
    assert "was killed by SIGKILL" in failed["message"]
    run = next((labctl.folder / ".labctl/runs").iterdir())
    again = [s for s in samples if s.get("attempt")]
    assert {s["cell"] for s in again} == {"parallel-free"}
    assert {s["warmup"] for s in again} == {True, False}
    consoles = {failed["console"], again[0]["console"]}
    assert len(consoles) == 2
    assert all((run / console).stat().st_size for console in consoles)
    measured = [s for s in samples if s["status"] == "ok" and not s["warmup"]]
    assert len(measured) == 2 * 3  # two blocks, two kernels and the A/A control
    text = labctl("report", check=False).stdout
    assert "qemu-killed" in text
    assert "measured again on a fresh boot" in " ".join(text.split())
    assert labctl.guests_running() == []


def is_guest(pid, name):
    words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")  # noqa: SIM115, PTH123
    return f"labctl-{name}".encode() in words
