"""`Guest`: an image that runs in QEMU on one topology, owned by a `with` block."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from labctl import files
from labctl.errors import BadOutput, BootFailed, GuestError, GuestLost
from labctl.guests import box, bring_up, command_port, endings, pinning, qemu, scratch
from labctl.guests.folder import check_disk
from labctl.guests.locks import folder_lock
from labctl.guests.qemu import GuestSpec
from labctl.guests.watchdog import SHORTLY_SECONDS, Machine, State, Watchdog
from labctl.transports import Outcome, Output, Stdin, Transport, exchange
from labctl.transports.console import Console
from labctl.transports.ssh import SshAddress

__all__ = ["Guest", "GuestSpec", "State"]

_POLL_SECONDS = 0.02
_RESTARTS = 2  # if QEMU itself crashes
_CAUSE_SECONDS = 2.0
_SILENCE_SECONDS = 60.0  # without a heartbeat, which the agent sends each second
# The guest's state after an error; CRASHED after all others.
_STATES = {"hung": State.HUNG, "deadline": State.READY, "bad-output": State.READY}
_BEATS_SECONDS = 3.0  # some heartbeats: less silence does not show that a guest hangs


class Guest:
    """A guest; entering the `with` block starts QEMU, leaving it stops QEMU.

    Methods that use the guest raise a `GuestError` with its kind and the console's end.
    """

    def __init__(self, spec: GuestSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.silence_seconds = _SILENCE_SECONDS
        self.patience_seconds = qemu.PATIENCE_SECONDS  # with QEMU's monitor
        self._watchdog = Watchdog(spec.name, spec.folder, spec.limits.console)
        self._stack = contextlib.ExitStack()
        self._qemu: contextlib.ExitStack | None = None  # owns QEMU, if this object started it
        self._restarts = _RESTARTS
        self._line: Transport | None = None
        self._monitor: qemu.Monitor | None = None
        self._folder: int | None = None

    @property
    def console(self) -> Console:
        return self._watchdog.console

    @property
    def state(self) -> State:
        return self._watchdog.state

    @state.setter
    def state(self, state: State) -> None:
        self._watchdog.state = state

    @property
    def tolerated(self) -> frozenset[str]:
        """Kinds of complaints that a test provokes, such as oom-kill; they are not raised."""
        return self._watchdog.tolerated

    @tolerated.setter
    def tolerated(self, kinds: frozenset[str]) -> None:
        self._watchdog.tolerated = kinds

    @property
    def boot_id(self) -> str:
        """The kernel's random id of this boot; empty until the guest is ready."""
        return self.console.boot_id or ""

    @property
    def log(self) -> Path:
        """The path of the console log."""
        return self.console.path

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.spec.check_files()
            stack.enter_context(folder_lock(self.spec.folder))
            self._qemu = stack.enter_context(contextlib.ExitStack())
            self._start(self._qemu)
            self._stack = stack.pop_all()
        return self

    def _start(self, owner: contextlib.ExitStack) -> None:
        self._use(owner.enter_context(box.running(self.spec)))

    def attach(self, machine: Machine) -> Self:
        """Use a running QEMU that outlives this object; call `detach` when done."""
        self._use(machine)
        self._watchdog.ignore_past()
        return self

    def be_patient(self, seconds: float) -> None:
        """Limit each wait for the guest to `seconds`, if it was longer; at least 3 s."""
        seconds = max(seconds, _BEATS_SECONDS)
        self.silence_seconds = min(self.silence_seconds, seconds)
        self.patience_seconds = min(self.patience_seconds, seconds)

    def _use(self, machine: Machine) -> None:
        self._watchdog.machine = machine
        # Sockets are opened through the folder's descriptor, since the kernel limits
        # socket paths to 108 bytes and the folder may be nested deeply.
        self._folder = os.open(self.spec.folder, os.O_PATH | os.O_DIRECTORY)

    def __exit__(self, *_: object) -> None:
        try:
            self.detach()
        finally:
            self.state = State.GONE
            self._stack.close()
            for name in (qemu.CONSOLE_SOCKET, qemu.LINE_SOCKET, qemu.MONITOR_SOCKET):
                files.unlink(self.spec.folder / name)
            scratch.remove(self.spec.folder, self.spec.topology)

    def detach(self) -> None:
        """Close the connections to the guest; QEMU keeps running if it is not owned here."""
        if self._line is not None:
            with contextlib.suppress(GuestError, OSError):
                self._line.close()
            self._line = None
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _socket(self, name: str) -> Path:
        return Path(f"/proc/self/fd/{self._folder}/{name}")

    def wait_ready(self, deadline_seconds: float) -> None:
        """Wait until the guest's init reports on the console that it is ready.

        Raises:
            BootFailed: the deadline passed, or QEMU exited. If QEMU crashes, it is started
                again, twice at most.
            GuestPanic: the kernel panicked during boot.
            GuestSplat: the kernel complained during boot.
            HostError: the vCPUs cannot be pinned to the CPUs of the placement.
            UserError: the guest is not what its topology asks for.
            HostError: the disk is full.
        """
        deadline = time.monotonic() + deadline_seconds
        while self.console.boot_id is None:
            box.limit_started(self._watchdog, self.spec)
            self._check_booting()
            if time.monotonic() > deadline:
                self.state = State.HUNG
                check_disk(self.spec.folder)
                raise BootFailed(
                    f"boot timed out: init not reached within {deadline_seconds:g} s",
                    where=self.name,
                    hint="the console log is in the guest's folder",
                    console_tail=self.console_tail(),
                )
            if self.console.boot_id is None:
                time.sleep(_POLL_SECONDS)
        box.limit_started(self._watchdog, self.spec)
        self.check()
        scratch.remove(self.spec.folder, self.spec.topology)  # QEMU has them open
        bring_up.bring_up(
            self.spec.topology,
            self.console.nodes,
            self.run,
            kernel=self.spec.image.kernel,
            where=f"{self.name}: {self.console.path}",
        )
        if self.spec.placement.vcpus:
            pinning.pin(self.vcpu_threads(), self.spec.placement, self.name)
        self.state = State.READY

    def vcpu_threads(self) -> dict[int, int]:
        """Return the host thread id of each vCPU."""
        return {cpu["cpu-index"]: cpu["thread-id"] for cpu in self.qmp("query-cpus-fast")}

    def _check_booting(self) -> None:
        try:
            self.check(SHORTLY_SECONDS)
        except GuestLost as error:
            # QEMU's own fault, not the kernel's: before 8.2, its emulation (TCG) can crash when
            # one CPU maps a PCI device while another writes to a register.
            if self._watchdog.has_qemu_crashed and self._qemu and self._restarts:
                self._restarts -= 1
                self.detach()
                self._qemu.close()
                self._watchdog.start_over()
                self._start(self._qemu)
                return
            raise endings.boot_failed(error, self.name) from error

    def check(self, most_seconds: float = math.inf) -> None:
        """Raise if the guest has crashed; see `Watchdog.check`."""
        self._watchdog.check(most_seconds)

    def console_tail(self, lines: int = 100) -> list[str]:
        """Return the last lines of the console."""
        return self.console.tail(lines)

    def run(
        self,
        argv: Sequence[str] | str,
        *,
        timeout_seconds: float,
        stdin: Stdin = b"",
        output: Output | None = None,
    ) -> Outcome:
        """Run a command in the guest: an argument vector, or a line for its shell.

        A command that fails is not an error: see `Outcome.status`. `stdin` is bytes or a
        file descriptor; `output` receives the output while the command runs.

        Raises:
            GuestError: the guest crashed or stopped responding, or the command timed out.
        """
        with self._busy() as line:
            outcome = line.run(argv, timeout_seconds, stdin, output)
            self.check()
        return outcome

    @contextlib.contextmanager
    def _busy(self) -> Iterator[Transport]:
        if self.state is State.PAUSED:
            self.resume()
        self.check()
        if self._line is None:
            self._line = self._open_line()
        self.state = State.BUSY
        try:
            yield self._line
        except GuestLost as error:
            self._find_cause()
            self.state = State.CRASHED
            raise self._with_console(error) from error
        except GuestError as error:
            self.state = _STATES.get(error.status, State.CRASHED)
            raise self._with_console(error) from error
        self.state = State.READY

    def _open_line(self) -> Transport:
        if self.spec.transport == "ssh":
            owner = str(self.spec.folder)
            opened = partial(command_port.open_ssh, self.ssh_address(), owner=owner)
        else:
            opened = partial(command_port.open_serial, self._socket(qemu.LINE_SOCKET))
        alive, seconds = partial(self.check, SHORTLY_SECONDS), self.silence_seconds
        return opened(alive=alive, silence_seconds=seconds, limits=self.spec.limits)

    def ssh_address(self) -> SshAddress:
        """Return the address of the guest's SSH server; raises as `command_port.ssh_address`."""
        usernet = partial(self.monitor, "info usernet")
        return command_port.ssh_address(self.spec, self.console, usernet)

    def _find_cause(self) -> None:
        """Wait up to 2 s for a crash that explains a lost connection, and raise it."""
        deadline = time.monotonic() + _CAUSE_SECONDS
        while time.monotonic() < deadline:
            self.check()
            time.sleep(_POLL_SECONDS)

    def _with_console(self, error: GuestError) -> GuestError:
        self._watchdog.explain_silence(error, self.qmp_status)
        if not error.console_tail:
            error.console_tail = tuple(self.console_tail())
        error.where = error.where or self.name
        return error

    def exchange(self, writes: Mapping[str, str], reads: Sequence[str]) -> dict[str, str]:
        """Write small files and read files, in one round trip.

        Returns the text of each file in `reads`; missing files are left out.

        Raises:
            TunableRefused: a file to write does not exist or rejects its value.
        """
        text = exchange.script(writes, reads)
        return exchange.answer(self.run(text, timeout_seconds=exchange.SECONDS), self.name)

    def read(self, path: str) -> str:
        """Return the text of a file in the guest; raise BadOutput if it cannot be read."""
        found = self.exchange({}, [path])
        if path not in found:
            raise BadOutput(f"cannot read {path}", where=self.name)
        return found[path]

    def write(self, path: str, text: str) -> None:
        """Write one line of text to a file in the guest, as `echo` does.

        Raises:
            TunableRefused: the file does not exist, or the kernel rejects the value.
        """
        self.exchange({path: text}, [])

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into the guest."""
        with self._busy() as line:
            line.put(local, remote)

    def get(self, remote: str) -> bytes:
        """Return the content of a file in the guest."""
        with self._busy() as line:
            return line.get(remote)

    def get_file(self, remote: str, local: Path) -> None:
        """Copy a file out of the guest, of any size up to `limits: file:`, to the host's disk."""
        with self._busy() as line:
            line.get_file(remote, local)

    def qmp(self, command: str, arguments: dict[str, object] | None = None) -> Any:  # noqa: ANN401
        """Run a QMP command and return its result."""
        try:
            if self._monitor is None:
                path, patience = self._socket(qemu.MONITOR_SOCKET), self.patience_seconds
                self._monitor = qemu.Monitor(path, self.name, patience_seconds=patience)
            return self._monitor.do(command, arguments)
        except GuestError as error:
            is_stopped = endings.explain_stop(error, self._watchdog.machine)
            if isinstance(error, GuestLost) and not is_stopped:
                self._find_cause()  # QEMU may have ended while the guest was paused
            raise

    def monitor(self, line: str) -> str:
        """Run a command of QEMU's human monitor and return its output."""
        return str(self.qmp("human-monitor-command", {"command-line": line}))

    def qmp_status(self) -> str:
        """Return the run state that QEMU reports, such as running or paused."""
        return str(self.qmp("query-status")["status"])

    def pause(self) -> None:
        """Stop the guest's vCPUs, so that it uses no CPU time of the host."""
        if self.state is State.READY:
            self.qmp("stop")
            self.state = State.PAUSED

    def resume(self) -> None:
        """Resume the guest's vCPUs."""
        if self.state is State.PAUSED:
            self.qmp("cont")
            self.state = State.READY
