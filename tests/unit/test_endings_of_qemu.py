"""Why QEMU exited, and why a guest is silent."""

import os
import signal
import subprocess
import time

import pytest

from labctl.errors import GuestHung, GuestLost
from labctl.experiments import clocks
from labctl.guests import endings

HALT = ["[    9.1] reboot: Power down"]
RESET = ["[    9.1] reboot: Restarting system", "[    9.2] reboot: machine restart"]


@pytest.mark.parametrize(
    ("status", "output", "console", "fault", "words"),
    [
        (-signal.SIGKILL, "", [], "qemu-killed", "SIGKILL"),
        (-signal.SIGSEGV, "", [], "qemu-crashed", "SIGSEGV"),
        (-signal.SIGABRT, "assertion failed", [], "qemu-crashed", "assertion failed"),
        (0, "qemu: terminating on signal 15 from pid 7 (sh)", [], "qemu-killed", "pid 7"),
        (1, "could not open disk", [], "qemu-exited", "could not open disk"),
        (0, "", HALT, "guest-shutdown", "powered off"),
        (0, "", RESET, "guest-reset", "kernel reset the machine"),
        (0, "", ["[    9.1] sysrq: Resetting"], "guest-reset", "kernel reset the machine"),
        (0, "", ["[    9.1] some work"], "guest-reset", "printed nothing"),  # a triple fault
    ],
)
def test_an_exit_of_qemu_is_named(status, output, console, fault, words):
    found = endings.of_qemu(status, output, console)
    assert found.fault == fault
    assert words in found.what


def test_the_exit_of_another_labctls_qemu_is_not_guessed():
    assert endings.of_qemu(0, "", ["[ 9.1] work"], is_known=False).fault == "qemu-exited"
    assert endings.of_qemu(0, "", HALT, is_known=False).fault == "guest-shutdown"


@pytest.fixture
def process():
    with subprocess.Popen(["sleep", "60"]) as found:
        yield found
        found.kill()


def test_a_stopped_qemu_is_named(process):
    os.kill(process.pid, signal.SIGSTOP)
    for _ in range(100):
        if endings.explain_stop(GuestHung("x"), process):
            break
        time.sleep(0.05)
    error = GuestHung("no response for 60 s")
    endings.explain_silence(error, process, lambda: pytest.fail("a stopped QEMU does not answer"))
    assert error.fault == "qemu-stopped"
    assert f"QEMU is stopped (pid {process.pid})" in error.what
    assert f"kill -CONT {process.pid}" in error.hint


@pytest.mark.parametrize(
    ("status", "fault", "words"),
    [
        ("paused", "guest-paused", "the guest is paused"),
        ("running", "no-response", "QEMU runs"),
        ("internal-error", "no-response", "internal-error"),
    ],
)
def test_a_silent_guest_is_named_by_qemus_state(process, status, fault, words):
    error = GuestHung("no response")
    endings.explain_silence(error, process, lambda: status)
    assert error.fault == fault
    assert words in error.what


def test_other_errors_and_an_unknown_state_stay(process):
    lost, hung = GuestLost("x"), GuestHung("y")
    endings.explain_silence(lost, process, lambda: "paused")

    def fail():
        raise GuestLost("no monitor")

    endings.explain_silence(hung, process, fail)
    assert (lost.what, lost.fault, hung.what, hung.fault) == ("x", "line-lost", "y", "no-response")


@pytest.mark.parametrize(("guest", "host"), [(1.0, 1.2), (10.0, 12.0), (2.0, 30.0), (300.0, 310.0)])
def test_clocks_that_agree(guest, host):
    clocks.check(guest, host)


@pytest.mark.parametrize(
    ("guest", "host", "way"), [(3600.0, 1.0, "forwards"), (0.0, 40.0, "back"), (-5.0, 30.0, "back")]
)
def test_a_clock_that_jumps_is_named(guest, host, way):
    with pytest.raises(GuestLost, match=f"jumped {way}") as caught:
        clocks.check(guest, host)
    assert caught.value.fault == "clock-jump"
