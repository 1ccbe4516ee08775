"""Why a guest ended or fell silent, from its QEMU process, QEMU's output and the console."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from labctl import completed, process_table
from labctl.errors import BootFailed, GuestError, GuestHung
from labctl.status import GuestFault

# Signals of a program's own faults; SIGKILL and SIGTERM come from others.
CRASHES = {
    -number
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
}
# Such a QEMU is not started again.
_DENIED = -signal.SIGSYS
_BROKEN_INTO = "the sandbox of QEMU denied a system call: the guest may have broken into QEMU"
# QEMU exits with status 0 after SIGTERM, and prints this.
_TERMINATED = "terminating on signal"
# What the kernel prints last before it powers off or resets the machine.
_POWERED_OFF = ("reboot: Power down", "reboot: System halted")
_RESET = ("reboot: Restarting system", "reboot: machine restart", "sysrq: Resetting")
_LAST_LINES = 5
# What QEMU says if the host does not give it memory.
_NO_MEMORY = re.compile(r"Cannot allocate memory|[Ii]nsufficient free host memory")
_LESS = "stop other programs or guests, or reduce the memory of the guests"


class _Machine(Protocol):
    @property
    def pid(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Ending:
    """Why QEMU exited."""

    what: str
    fault: GuestFault
    hint: str | None = None


def of_qemu(
    status: int,
    last_output: str,
    console: Sequence[str],
    *,
    is_known: bool = True,
    oom: Callable[[], str] = lambda: "",
) -> Ending:
    """Return why QEMU exited with `status`, negative for a signal; it runs with -no-reboot.

    The status is not known (`is_known`) if another labctl started QEMU. `oom` returns what
    shows that the host's OOM killer ended QEMU, if anything does.
    """
    what = f"QEMU {completed.ending(status)}: {last_output}"
    if status in CRASHES or status == _DENIED:
        hint = _BROKEN_INTO if status == _DENIED else "QEMU crashed, not the guest's kernel"
        return Ending(what, GuestFault.QEMU_CRASHED, hint)
    if status == -signal.SIGKILL and (evidence := oom()):
        return _out_of_memory(evidence)
    if status < 0 or _TERMINATED in last_output:
        hint = "another process ended QEMU, or the OOM killer, which `dmesg` would show"
        return Ending(what, GuestFault.QEMU_KILLED, hint)
    if status > 0 and _NO_MEMORY.search(last_output):
        return Ending(f"the host has too little memory: {what}", GuestFault.HOST_OOM, _LESS)
    if status > 0:
        return Ending(what, GuestFault.QEMU_EXITED)
    end = "\n".join(console[-_LAST_LINES:])
    if any(text in end for text in _POWERED_OFF):
        return Ending("the guest powered off, and QEMU exited", GuestFault.GUEST_SHUTDOWN)
    if any(text in end for text in _RESET):
        return Ending("the guest's kernel reset the machine", GuestFault.GUEST_RESET)
    if not is_known:
        if evidence := oom():
            return _out_of_memory(evidence)
        return Ending(f"QEMU exited: {last_output}", GuestFault.QEMU_EXITED)
    return Ending(
        "the guest was reset, and its kernel printed nothing",
        GuestFault.GUEST_RESET,
        "a triple fault of the kernel, or a reset by a program or over QEMU's monitor",
    )


def _out_of_memory(evidence: str) -> Ending:
    what = f"the host ran out of memory, and its OOM killer ended QEMU: {evidence}"
    return Ending(what, GuestFault.HOST_OOM, _LESS)


def boot_failed(error: GuestError, name: str) -> BootFailed:
    """Return the error of a guest that was lost before it was ready."""
    return BootFailed(
        error.what,
        where=name,
        hint=error.hint,
        console_tail=error.console_tail,
        fault=error.fault,
    )


def explain_stop(error: GuestError, machine: _Machine | None) -> bool:
    """Say in the error that QEMU is stopped, as by SIGSTOP, if it is; return whether it is."""
    if machine is None or not process_table.is_stopped(machine.pid):
        return False
    error.what += f": QEMU is stopped (pid {machine.pid})"
    error.hint = f"`kill -CONT {machine.pid}` continues it"
    error.fault = GuestFault.QEMU_STOPPED
    return True


def explain_silence(
    error: GuestError, machine: _Machine | None, qemu_status: Callable[[], str]
) -> None:
    """Add the cause to the error of a guest that does not respond, if QEMU has one.

    `qemu_status` returns the run state that QEMU reports; it may raise a GuestError.
    """
    if not isinstance(error, GuestHung) or explain_stop(error, machine):
        return
    try:
        status = qemu_status()
    except GuestError:
        return
    if status == "paused":
        error.what += ": the guest is paused"
        error.fault = GuestFault.GUEST_PAUSED
    elif status == "running":
        error.what += ": QEMU runs, but the guest's kernel or agent hangs"
    else:
        error.what += f": QEMU's state is {status}"
