"""The direct QEMU launcher: a `GuestSpec` as a command line, and the QMP monitor."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labctl.arch import ARCHITECTURES, X86_64, Architecture
from labctl.errors import GuestHung, GuestLost, UserError
from labctl.guests import scratch
from labctl.guests.disks import Disk
from labctl.guests.placement import ANYWHERE, Placement
from labctl.guests.topology import machine_options, qemu_arguments
from labctl.host import sandbox, tools
from labctl.kernels.build import Image
from labctl.kernels.hashed import Hashed
from labctl.lab.command_line import LONGEST_BYTES
from labctl.lab.limits import GuestLimits
from labctl.lab.topology import Topology
from labctl.transports import sockets

PROGRAM = X86_64.qemu
CONSOLE_SOCKET = "console.sock"
LINE_SOCKET = "line.sock"
MONITOR_SOCKET = "monitor.sock"
CONSOLE_LOG = "console.log"
QEMU_LOG = "qemu.log"
COMMAND = "command.txt"

PATIENCE_SECONDS = 10.0
# bring_up compares hotplugged memory and sets it online, whatever the .config's default is.
_OFFLINE = "memhp_default_state=offline"
# QEMU's user network gives the guest this address. QEMU also chooses the free port on the
# host's loopback, which avoids a race for the port.
_GUEST_ADDRESS = "10.0.2.15"
_SSH_PORT = 22
_FORWARDED = re.compile(
    rf"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+{re.escape(_GUEST_ADDRESS)}\s+{_SSH_PORT}\s"
)


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """The complete configuration of a guest; logs and sockets are in `folder`.

    `programs` is a folder with the lab's programs, for launchers whose guests do not boot
    from the initramfs. With `ssh_key`, the private key for its SSH server, the guest has a
    network card that only reaches this server. `files` and the read-only `disks` are verified
    before the start. With `one_thread`, TCG runs the CPUs by turns in one thread. `box` is the
    program that limits QEMU to its files; see `confine`.
    """

    name: str
    image: Image
    topology: Topology
    initramfs: Path
    accel: str
    folder: Path
    command_line: str = ""
    launcher: str = "qemu"
    programs: Path | None = None
    placement: Placement = ANYWHERE
    transport: str = "serial"
    ssh_key: Path | None = None
    disks: tuple[Disk, ...] = ()
    limits: GuestLimits = field(default=GuestLimits(), compare=False)
    one_thread: bool = False
    files: tuple[Hashed, ...] = field(default=(), compare=False)
    box: Path | None = field(default=None, compare=False)

    def check_files(self) -> None:
        """Verify the hashes of all files, so that a damaged file is not taken for a bad kernel.

        Raises:
            HostError: a file changed since it was built or first read.
        """
        for disk in self.disks:
            disk.check()
        for file in self.files:
            file.check()


def command(spec: GuestSpec) -> list[str]:
    """Return QEMU's argument vector; sockets and logs are relative to the guest's folder.

    Raises:
        UserError: the kernel command line is longer than Linux reads.
    """
    arch = ARCHITECTURES[spec.image.arch]
    words = [
        arch.qemu,
        "-name",
        f"labctl-{option_value(spec.name)}",
        "-no-user-config",
        "-nodefaults",
        *sandbox.ARGUMENTS,
    ]
    machine = arch.qemu_machine + machine_options(spec.topology)
    words += ["-display", "none", "-no-reboot", "-machine", machine]
    words += ["-nic", "none"] if spec.ssh_key is None else network()
    cpu = arch.cpu(spec.topology.packages.threads)
    words += accelerator(spec.accel, cpu, one_thread=spec.one_thread)
    words += ["-icount", "shift=0"] if spec.topology.icount else []
    words += qemu_arguments(spec.topology, spec.placement.host_nodes)
    words += ["-kernel", str(spec.image.bzimage), "-initrd", str(spec.initramfs)]
    delay_loop = _delay_loop(arch, spec.image.config) if spec.accel == "tcg" else ""
    hotplug = _OFFLINE if spec.topology.has_hotplug else ""
    parts = (arch.command_line, delay_loop, hotplug, spec.command_line)
    words += ["-append", checked(" ".join(filter(None, parts)))]
    words += serial("console", CONSOLE_SOCKET, log=CONSOLE_LOG)
    words += serial("line", LINE_SOCKET, device=arch.line_device)
    # Scratch disks first, so that their names do not depend on the roots of workloads.
    words += [*scratch.arguments(spec.topology), *read_only(spec.disks)]
    return [*words, *monitor(), *spec.topology.qemu]


def read_only(disks: Sequence[Disk]) -> list[str]:
    """Return the arguments of read-only disks, which a guest knows by their serial numbers."""
    words: list[str] = []
    for number, disk in enumerate(disks):
        name = f"root{number}"
        file = f"file={option_value(str(disk.path))},format=raw,readonly=on"
        words += ["-drive", f"{file},if=none,id={name}"]
        words += ["-device", f"virtio-blk-pci,drive={name},serial={disk.serial}"]
    return words


def _delay_loop(arch: Architecture, config: Path | None) -> str:
    return arch.delay_loop(config.read_text()) if config is not None and config.is_file() else ""


def checked(command_line: str) -> str:
    """Return a kernel command line after a check of its length.

    Raises:
        UserError: it is longer than Linux reads.
    """
    size = len(command_line.encode())
    if size > LONGEST_BYTES:
        raise UserError(
            f"kernel command line has {size} bytes; Linux reads at most {LONGEST_BYTES}",
            hint="shorten `command_line:` or the values of tunables with `parameter:`",
        )
    return command_line


def argv(spec: GuestSpec) -> list[str]:
    """Return the argument vector that starts the guest."""
    return command(spec)


def find() -> str:
    """Return the name of the QEMU program.

    Raises:
        HostError: QEMU is not installed.
    """
    tools.check_installed([PROGRAM])
    return PROGRAM


def check(arch: Architecture) -> None:
    """Check that the QEMU of an architecture is installed.

    Raises:
        HostError: it is not; the hint has the command to install it.
    """
    tools.check_installed([arch.qemu], arch)
    tools.version_text(arch.qemu)


def accelerator(
    accel: str, emulated_cpu: str = X86_64.emulated_cpu, *, one_thread: bool = False
) -> list[str]:
    """Return the arguments for an accelerator and its CPU."""
    if accel != "tcg":
        return ["-accel", "kvm", "-cpu", "host"]
    thread = "single" if one_thread else "multi"
    return ["-accel", f"tcg,thread={thread}", "-cpu", emulated_cpu]


def option_value(text: str) -> str:
    """Escape a text for use in QEMU's comma-separated options."""
    return text.replace(",", ",,")


def network() -> list[str]:
    """Return the arguments of a network card that only reaches the guest's SSH server."""
    forward = f"hostfwd=tcp:127.0.0.1:0-{_GUEST_ADDRESS}:{_SSH_PORT}"
    # restrict=on: the guest cannot connect to the outside. No ROM: no network boot.
    return [
        "-netdev",
        f"user,id=net,restrict=on,ipv6=off,{forward}",
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
    ]


def forwarded_port(usernet: str) -> int | None:
    """Return the host port that forwards to a guest's SSH server.

    `usernet` is the output of `info usernet` on QEMU's monitor.
    """
    found = _FORWARDED.search(usernet)
    return int(found[1]) if found else None


def serial(name: str, socket: str, log: str | None = None, device: str | None = None) -> list[str]:
    """Return the arguments of the next serial port, or of a `device`, on a socket."""
    chardev = f"socket,id={name},path={socket},server=on,wait=off"
    if log:
        chardev += f",logfile={log},logappend=off"
    port = ["-device", f"{device},chardev={name}"] if device else ["-serial", f"chardev:{name}"]
    return ["-chardev", chardev, *port]


def monitor() -> list[str]:
    """Return the arguments of the monitor on its socket."""
    chardev = f"socket,id=monitor,path={MONITOR_SOCKET},server=on,wait=off"
    return ["-chardev", chardev, "-mon", "chardev=monitor,mode=control"]


class Monitor:
    """QEMU's machine protocol (QMP): pause, resume, quit. One client at a time.

    Every method waits at most `patience_seconds`: a QEMU that is stopped, or serves another
    client, accepts connections but never answers.
    """

    def __init__(
        self, path: Path, name: str, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Connect to the monitor's socket.

        Raises:
            GuestHung: QEMU does not answer in time.
            GuestLost: there is no monitor, or the connection broke.
        """
        # Imported late: they import asyncio, which `--help` does not need.
        from qemu.qmp import QMPClient

        from labctl.guests.stepped import Loop

        logging.getLogger("qemu").addHandler(logging.NullHandler())  # its errors are also raised
        self._name = name
        self._patience_seconds = patience_seconds
        self._client = QMPClient(name)
        with self._errors():
            deadline = time.monotonic() + patience_seconds
            line = sockets.connect(path, deadline, check=lambda: None, until_served=False)
            self._loop = Loop()
            try:
                self._loop.run(self._client.connect(line), deadline)
            except BaseException:
                self._loop.close()
                line.close()
                raise

    def do(self, name: str, arguments: dict[str, object] | None = None) -> Any:  # noqa: ANN401
        """Run one command and return its answer.

        Raises:
            GuestHung: QEMU does not answer in time.
            GuestLost: QEMU exited or rejected the command.
        """
        deadline = time.monotonic() + self._patience_seconds
        with self._errors():
            return self._loop.run(self._client.execute(name, arguments or {}), deadline)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        from qemu.qmp import QMPError

        try:
            yield
        except (TimeoutError, BlockingIOError) as error:
            raise GuestHung(
                f"QEMU's monitor did not answer within {self._patience_seconds:g} s",
                where=self._name,
                hint="QEMU is stopped, or another program is connected to its monitor",
            ) from error
        except (QMPError, OSError, EOFError) as error:
            raise GuestLost(f"QEMU's monitor does not answer: {error}", where=self._name) from error

    def close(self) -> None:
        """Close the connection; no error if QEMU has exited."""
        from qemu.qmp import QMPError

        try:
            deadline = time.monotonic() + self._patience_seconds
            with contextlib.suppress(QMPError, OSError, EOFError):
                self._loop.run(self._client.disconnect(), deadline)
        finally:
            self._loop.close()
