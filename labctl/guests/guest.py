"""`Guest`: one running image on one topology, owned by a `with` block."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, Self

from labctl import completed, files, proc
from labctl.errors import (
    BadOutput,
    BootFailed,
    GuestError,
    GuestLost,
    GuestPanic,
    GuestSplat,
    HostError,
    UserError,
)
from labctl.guests import launchers, pinning, qemu, shape
from labctl.guests.qemu import GuestSpec
from labctl.transports import Outcome, Output, Stdin, Transport, exchange
from labctl.transports.console import Console
from labctl.transports.ssh import SshAddress

__all__ = ["Guest", "GuestSpec", "State", "boot_all"]

_POLL_SECONDS = 0.02
_CONSOLE_BYTES = 64 * 1024  # about what a boot writes
_LAST_WORDS_SECONDS = 2.0
_FOLDER_SECONDS = 10.0
# Without a heartbeat of the agent, which sends one each second while it works.
_SILENCE_SECONDS = 60.0
# Some heartbeats: less says nothing about a guest.
_BEATS_SECONDS = 3.0


class State(Enum):
    """What a guest is doing."""

    BOOTING = "booting"
    READY = "ready"
    BUSY = "busy"
    PAUSED = "paused"
    CRASHED = "crashed"
    HUNG = "hung"
    GONE = "gone"
    UNKNOWN = "unknown"  # its record is damaged


class Machine(Protocol):
    """The QEMU process behind a guest, owned or found again by its pid."""

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""

    def end(self) -> int:
        """End it."""


class Guest:
    """A guest; entering starts QEMU, leaving ends it.

    `run`, `read` and `write` raise a `GuestError` that says how the guest
    failed, with the end of its console.
    """

    def __init__(self, spec: GuestSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.state = State.BOOTING
        self.silence_seconds = _SILENCE_SECONDS
        self.patience_seconds = qemu.PATIENCE_SECONDS  # with QEMU's monitor
        # Kinds of complaints that are expected here: oom-kill, of a test that brings one about.
        self.tolerated: frozenset[str] = frozenset()
        self.console = Console(spec.folder / qemu.CONSOLE_LOG)
        self._stack = contextlib.ExitStack()
        self._machine: Machine | None = None
        self._line: Transport | None = None
        self._monitor: qemu.Monitor | None = None
        self._folder: int | None = None
        self._known_lines = 0

    @property
    def boot_id(self) -> str:
        """The kernel's own random id of this boot; empty until it is ready."""
        return self.console.boot_id or ""

    @property
    def log(self) -> Path:
        """The file of its console."""
        return self.console.path

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.spec.check_files()
            stack.enter_context(_alone_in(self.spec.folder))
            prepare_folder(self.spec)
            machine = stack.enter_context(
                proc.spawn(
                    launchers.argv(self.spec),
                    cwd=self.spec.folder,
                    log=self.spec.folder / qemu.QEMU_LOG,
                )
            )
            self._use(machine)
            self._stack = stack.pop_all()
        return self

    def attach(self, machine: Machine) -> Self:
        """Use a QEMU that runs already and outlives this object; call `detach` when done."""
        self._use(machine)
        self.console.poll()
        self._known_lines = self.console.lines
        return self

    def be_patient(self, seconds: float) -> None:
        """Have what waits for the guest give up after so long at most, or sooner as ever."""
        seconds = max(seconds, _BEATS_SECONDS)
        self.silence_seconds = min(self.silence_seconds, seconds)
        self.patience_seconds = min(self.patience_seconds, seconds)

    def _use(self, machine: Machine) -> None:
        self._machine = machine
        # Sockets are reached through the folder's descriptor: a path of a few
        # bytes, however deep the folder lies (the kernel's limit is 108).
        self._folder = os.open(self.spec.folder, os.O_PATH | os.O_DIRECTORY)

    def __exit__(self, *_: object) -> None:
        try:
            self.detach()
        finally:
            self.state = State.GONE
            self._stack.close()
            for name in (qemu.CONSOLE_SOCKET, qemu.LINE_SOCKET, qemu.MONITOR_SOCKET):
                (self.spec.folder / name).unlink(missing_ok=True)

    def detach(self) -> None:
        """Give up the lines to the guest; QEMU runs on if somebody else owns it."""
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
        """Wait until the guest's init announced itself on the console.

        Raises:
            BootFailed: it did not within the deadline, or QEMU ended first.
            GuestPanic: the kernel panicked on its way.
            GuestSplat: the kernel complained on its way.
            HostError: its vCPUs cannot be pinned as the placement says.
            UserError: the kernel did not make of it what its topology says.
        """
        deadline = time.monotonic() + deadline_seconds
        while self.console.boot_id is None:
            self._check_booting()
            if time.monotonic() > deadline:
                self.state = State.HUNG
                self._check_disk()
                raise BootFailed(
                    f"boot timed out: init not reached within {deadline_seconds:g} s",
                    where=self.name,
                    hint="the console log is in the guest's folder",
                    console_tail=self.console_tail(),
                )
            time.sleep(_POLL_SECONDS)
        self.check()
        self._check_shape()
        if self.spec.placement.vcpus:
            pinning.pin(self.vcpu_threads(), self.spec.placement, self.name)
        self.state = State.READY

    def _check_shape(self) -> None:
        nodes = [node for text in self.console.nodes if (node := shape.parse(text))]
        found = shape.differences(self.spec.topology, nodes)
        if found:
            raise UserError(
                f"kernel {self.spec.image.kernel} does not see the configured topology: "
                + "; ".join(found),
                where=f"{self.name}: {self.console.path}",
                hint="check CONFIG_NUMA, CONFIG_ACPI_NUMA, CONFIG_NODES_SHIFT and CONFIG_NR_CPUS "
                "in its .config; mem=, maxcpus=, nr_cpus= and numa= on its command line; and "
                "the SRAT and SLIT lines of the console",
            )

    def _check_disk(self) -> None:
        """Raise HostError if the console cannot be read for want of space: QEMU says nothing."""
        if files.free_bytes(self.spec.folder) < _CONSOLE_BYTES:
            raise HostError(
                "disk full: QEMU cannot write the guest's console",
                where=str(self.spec.folder),
                hint="free disk space; `labctl clean` removes files that labctl can rebuild",
            )

    def vcpu_threads(self) -> dict[int, int]:
        """Return the host's thread of each vCPU."""
        return {cpu["cpu-index"]: cpu["thread-id"] for cpu in self.qmp("query-cpus-fast")}

    def _check_booting(self) -> None:
        try:
            self.check()
        except GuestLost as error:
            raise BootFailed(
                error.what, where=self.name, hint=error.hint, console_tail=error.console_tail
            ) from error

    def check(self) -> None:
        """Raise if the console or QEMU says that the guest is not well; return quickly if it is.

        Raises:
            GuestPanic: the kernel panicked.
            GuestSplat: the kernel complained since the last check that raised.
            GuestLost: QEMU is gone.
        """
        assert self._machine is not None, "the guest was not started"
        status = self._machine.poll()  # before the console: what it wrote last is then there
        self.console.poll()
        new = [c for c in self.console.complaints if c.line_number > self._known_lines]
        panic = self.console.panic()
        if panic:
            self.state = State.CRASHED
            first = new[0] if new else panic
            cause = f" after: {first.text.strip()}" if first is not panic else ""
            raise GuestPanic(
                panic.text.strip() + cause, where=self.name, console_tail=self.console_tail()
            )
        if status is not None:
            self.state = State.GONE
            raise GuestLost(
                f"QEMU {completed.ending(status)}: {self._last_words()}",
                where=self.name,
                console_tail=self.console_tail(),
            )
        self._known_lines = self.console.lines
        complaint = next((c for c in new if c.kind not in self.tolerated), None)
        if complaint is not None and complaint.kind == "reboot":
            self.state = State.CRASHED
            raise GuestLost(
                f"guest rebooted: {complaint.text.strip()}",
                where=f"{self.name}: {self.console.path}:{complaint.line_number}",
                console_tail=self.console_tail(),
            )
        if complaint is not None:
            raise GuestSplat(
                complaint.text.strip(),
                kind=complaint.kind,
                where=f"{self.name}: {self.console.path}:{complaint.line_number}",
                console_tail=self.console_tail(),
            )

    def _last_words(self) -> str:
        log = self.spec.folder / qemu.QEMU_LOG
        lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
        return lines[-1] if lines else "no output"

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
        """Run a command in the guest (a list of words, or text for its shell).

        A command that fails is no error: see `Outcome.status`. `stdin` is bytes or a
        file descriptor to read; `output` is given what is printed, as it comes.

        Raises:
            GuestError: the guest did not survive it, fell silent, or overran the deadline.
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
            self.state = {"hung": State.HUNG, "deadline": State.READY}.get(
                error.status, State.CRASHED
            )
            raise self._with_console(error) from error
        self.state = State.READY

    def _open_line(self) -> Transport:
        if self.spec.transport == "ssh":
            # Late: it brings fabric with it.
            from labctl.transports.ssh.transport import SshTransport

            return SshTransport(
                self.ssh_address(),
                alive=self.check,
                owner=str(self.spec.folder),
                silence_seconds=self.silence_seconds,
            )
        from labctl.transports.serial import SerialTransport  # it brings pexpect with it

        return SerialTransport(
            self._socket(qemu.LINE_SOCKET),
            alive=self.check,
            silence_seconds=self.silence_seconds,
        )

    def ssh_address(self) -> SshAddress:
        """Return where the guest's SSH server is reached; its host key is the console's word.

        Raises:
            UserError: it has none.
            GuestLost: it should have one, and did not say so.
        """
        if self.spec.ssh_key is None:
            raise UserError(
                f"guest {self.name} has no SSH server: its transport is {self.spec.transport}",
                hint="set `transport: ssh` under `defaults:` in lab.yaml, then run `labctl up`",
            )
        self.console.poll()
        host_key = self.console.ssh_host_key
        port = qemu.forwarded_port(self.monitor("info usernet"))
        if host_key is None or port is None:
            raise GuestLost(
                "SSH server did not start",
                where=self.name,
                hint="images not built by labctl need the options of guest/kconfig/ssh.config",
                console_tail=self.console_tail(),
            )
        return SshAddress("127.0.0.1", port, "root", key=self.spec.ssh_key, host_key=host_key)

    def _find_cause(self) -> None:
        """Raise what explains a lost line, if QEMU is about to end and the console tells why."""
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while time.monotonic() < deadline:
            self.check()
            time.sleep(_POLL_SECONDS)

    def _with_console(self, error: GuestError) -> GuestError:
        if not error.console_tail:
            error.console_tail = tuple(self.console_tail())
        error.where = error.where or self.name
        return error

    def exchange(self, writes: Mapping[str, str], reads: Sequence[str]) -> dict[str, str]:
        """Write small files, then read some, all in one round trip.

        Returns the text of each file in `reads`; those that do not exist are left out.

        Raises:
            KnobRefused: a file to be written does not exist or does not take its value.
        """
        text = exchange.script(writes, reads)
        return exchange.answer(self.run(text, timeout_seconds=exchange.SECONDS), self.name)

    def read(self, path: str) -> str:
        """Return the text of a file in the guest.

        Raises:
            BadOutput: it cannot be read.
        """
        found = self.exchange({}, [path])
        if path not in found:
            raise BadOutput(f"cannot read {path}", where=self.name)
        return found[path]

    def write(self, path: str, text: str) -> None:
        """Write one line of text to a file in the guest, as `echo` would.

        Raises:
            KnobRefused: the kernel did not take it, or there is no such file.
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

    def qmp(self, command: str, arguments: dict[str, object] | None = None) -> Any:  # noqa: ANN401
        """Run a command of QEMU's machine protocol and return its answer."""
        if self._monitor is None:
            path = self._socket(qemu.MONITOR_SOCKET)
            self._monitor = qemu.Monitor(path, self.name, patience_seconds=self.patience_seconds)
        return self._monitor.do(command, arguments)

    def monitor(self, line: str) -> str:
        """Run a line of QEMU's monitor for humans and return what it prints."""
        return str(self.qmp("human-monitor-command", {"command-line": line}))

    def serve_gdb(self, socket: str | None) -> None:
        """Let gdb attach by a socket in the guest's folder; None: no more, and the guest goes on.

        Raises:
            GuestLost: QEMU does not do it.
        """
        if socket is None:
            self.monitor("gdbserver none")
            self.qmp("cont")
            return
        said = self.monitor(f"gdbserver unix:{socket},server=on,wait=off")
        if "Waiting for gdb connection" not in said:
            raise GuestLost(f"QEMU did not start its gdb server: {said.strip()}", where=self.name)

    def qmp_status(self) -> str:
        """Return QEMU's word for what the machine does, such as running or paused."""
        return str(self.qmp("query-status")["status"])

    def pause(self) -> None:
        """Stop the guest's vCPUs, so that it takes no time from the others."""
        if self.state is State.READY:
            self.qmp("stop")
            self.state = State.PAUSED

    def resume(self) -> None:
        """Let the guest's vCPUs go on."""
        if self.state is State.PAUSED:
            self.qmp("cont")
            self.state = State.READY


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep the guests of other labctls out of a folder: they would take its sockets and logs.

    Raises:
        HostError: there is one, and it does not leave.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + _FOLDER_SECONDS
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > deadline:
                raise HostError(
                    "folder is in use by a guest of another labctl process",
                    where=str(folder),
                    hint="wait until it finishes, or set another `state:` in a copy of lab.yaml",
                )
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def prepare_folder(spec: GuestSpec) -> None:
    """Make the guest's folder, private, and write down how it was started."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    spec.folder.chmod(0o700)
    # An earlier boot in this folder would be taken for this one, as long as QEMU
    # has not yet emptied its log.
    (spec.folder / qemu.CONSOLE_LOG).unlink(missing_ok=True)
    (spec.folder / qemu.COMMAND).write_text(shlex.join(launchers.command(spec)) + "\n")


@contextlib.contextmanager
def boot_all(specs: Sequence[GuestSpec], deadline_seconds: float) -> Iterator[list[Guest]]:
    """Boot guests side by side; yield them when all are ready.

    Raises:
        GuestError: as `Guest.wait_ready`, for the first that fails.
    """
    with contextlib.ExitStack() as stack:
        guests = [stack.enter_context(Guest(spec)) for spec in specs]
        for guest in guests:
            guest.wait_ready(deadline_seconds)
        yield guests
