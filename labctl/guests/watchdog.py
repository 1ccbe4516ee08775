"""The watchdog of a guest: detects crashes from its console and from QEMU's end."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Protocol

from labctl import process_table
from labctl.errors import GuestError, GuestHung, GuestLost, GuestPanic, GuestSplat
from labctl.guests import endings, qemu
from labctl.guests.folder import check_disk
from labctl.host.oom import OomWatch
from labctl.status import GuestFault
from labctl.transports.console import MOST_BYTES, Complaint, Console
from labctl.units import rough_size

# While a command runs: a guest that prints without end must not delay its deadline.
SHORTLY_SECONDS = 0.2


class State(Enum):
    """The state of a guest."""

    BOOTING = "booting"
    READY = "ready"
    BUSY = "busy"
    PAUSED = "paused"
    CRASHED = "crashed"
    HUNG = "hung"
    GONE = "gone"
    UNKNOWN = "unknown"  # its record is damaged


class Machine(Protocol):
    """The QEMU process of a guest: a child, or a process found by its pid."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""

    def end(self) -> int:
        """Stop it and return the exit status."""


class Watchdog:
    """Keeps the state of a guest and raises an error when the guest has crashed."""

    def __init__(self, name: str, folder: Path, console_bytes: int = MOST_BYTES) -> None:
        self._console_bytes = console_bytes
        self._console_log = folder / qemu.CONSOLE_LOG
        self._machine: Machine | None = None
        self._oom: OomWatch | None = None
        # Kinds of complaints that a test provokes, such as oom-kill; they are not raised.
        self.tolerated: frozenset[str] = frozenset()
        self._name = name
        self._log = folder / qemu.QEMU_LOG
        self.start_over()

    def start_over(self) -> None:
        """Follow a new QEMU's boot, from the start of its console."""
        self.state = State.BOOTING
        self.console = Console(self._console_log, self._console_bytes)
        self._known_lines = 0

    @property
    def machine(self) -> Machine | None:
        """The guest's QEMU, None before its start."""
        return self._machine

    @machine.setter
    def machine(self, machine: Machine) -> None:
        self._machine = machine
        self._oom = OomWatch.of(machine.pid)

    @property
    def has_qemu_crashed(self) -> bool:
        """Whether QEMU ended by a fault of its own."""
        return self.machine is not None and self.machine.poll() in endings.CRASHES

    def ignore_past(self) -> None:
        """Do not raise complaints that the console already has."""
        self.console.poll()
        self._known_lines = self.console.lines

    def check(self, most_seconds: float = math.inf) -> None:
        """Raise if the console or QEMU shows that the guest has crashed.

        The console is read for at most `most_seconds`, to its end if QEMU has ended.

        Raises:
            GuestPanic: the kernel panicked.
            GuestSplat: the kernel complained since the last check.
            GuestLost: QEMU has exited, the guest rebooted, or its console log is too large.
            HostError: QEMU has exited, and the disk is full.
        """
        assert self.machine is not None, "the guest was not started"
        # Before the console is read, so that QEMU's last output is included.
        status = self.machine.poll()
        self.console.poll(most_seconds if status is None else math.inf)
        new = [c for c in self.console.complaints if c.line_number > self._known_lines]
        self._check_panic(new)
        if status is not None:
            self.state = State.GONE
            tail = self.console.tail()
            is_known = not isinstance(self.machine, process_table.Found)
            check_disk(self._log.parent)
            oom = self._oom.evidence if self._oom else lambda: ""
            last = self._last_output()
            found = endings.of_qemu(status, last, tail, is_known=is_known, oom=oom)
            raise GuestLost(
                found.what,
                where=self._name,
                hint=found.hint,
                console_tail=tail,
                fault=found.fault,
            )
        self._known_lines = self.console.lines
        complaint = next((c for c in new if c.kind not in self.tolerated), None)
        if complaint is not None:
            self._raise_complaint(complaint)
        if self.console.is_full:
            self.state = State.CRASHED
            raise GuestLost(
                f"console log is larger than {rough_size(self._console_bytes)}",
                where=f"{self._name}: {self.console.path}",
                hint="the guest prints without end; or raise `limits: console:` under "
                "`defaults:` in lab.yaml",
                console_tail=self.console.tail(),
                fault=GuestFault.CONSOLE_FLOOD,
            )

    def _check_panic(self, new: list[Complaint]) -> None:
        panic = self.console.panic()
        if panic is None:
            return
        self.state = State.CRASHED
        first = new[0] if new else panic
        cause = f" after: {first.text.strip()}" if first is not panic else ""
        raise GuestPanic(
            panic.text.strip() + cause, where=self._name, console_tail=self.console.tail()
        )

    def _raise_complaint(self, complaint: Complaint) -> None:
        where = f"{self._name}: {self.console.path}:{complaint.line_number}"
        text, tail = complaint.text.strip(), self.console.tail()
        if complaint.kind == "reboot":
            self.state = State.CRASHED
            what, fault = f"guest rebooted: {text}", GuestFault.REBOOTED
            raise GuestLost(what, where=where, console_tail=tail, fault=fault)
        raise GuestSplat(text, kind=complaint.kind, where=where, console_tail=tail)

    def explain_silence(self, error: GuestError, qemu_status: Callable[[], str]) -> None:
        """Add the cause to the error of a guest that does not respond; see `endings`.

        Raises:
            HostError: the disk is full, so that the console does not have the cause.
        """
        if isinstance(error, GuestHung):
            check_disk(self._log.parent)
        endings.explain_silence(error, self.machine, qemu_status)

    def _last_output(self) -> str:
        lines = Console(self._log).tail(1)
        return lines[-1] if lines else "no output"
