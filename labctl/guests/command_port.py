"""The command port of a guest: the transport that its spec asks for, serial or SSH."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from labctl.errors import GuestLost, UserError
from labctl.guests import qemu
from labctl.guests.qemu import GuestSpec
from labctl.lab.limits import GuestLimits
from labctl.transports import Transport
from labctl.transports.command import CommandTransport
from labctl.transports.console import Console
from labctl.transports.ssh import SshAddress


def open_serial(
    socket: Path, *, alive: Callable[[], None], silence_seconds: float, limits: GuestLimits
) -> Transport:
    """Return the transport over the guest's second serial port."""
    from labctl.transports.serial import SerialTransport  # late: it imports pexpect

    line = SerialTransport(socket, alive=alive, silence_seconds=silence_seconds)
    return _limited(line, limits)


def open_ssh(
    address: SshAddress,
    *,
    owner: str,
    alive: Callable[[], None],
    silence_seconds: float,
    limits: GuestLimits,
) -> Transport:
    """Return the transport over SSH; `owner` names the commands that it may kill."""
    from labctl.transports.ssh.transport import SshTransport  # late: it imports fabric

    line = SshTransport(address, alive=alive, owner=owner, silence_seconds=silence_seconds)
    return _limited(line, limits)


def _limited(line: CommandTransport, limits: GuestLimits) -> Transport:
    line.output_bytes, line.file_bytes = limits.output, limits.file
    return line


def ssh_address(spec: GuestSpec, console: Console, usernet: Callable[[], str]) -> SshAddress:
    """Return the address of a guest's SSH server; the host key is read from the console.

    `usernet` returns the output of QEMU's `info usernet`.

    Raises:
        UserError: the guest has no SSH server.
        GuestLost: its SSH server did not start.
    """
    if spec.ssh_key is None:
        raise UserError(
            f"guest {spec.name} has no SSH server: its transport is {spec.transport}",
            hint="set `transport: ssh` under `defaults:` in lab.yaml, then run `labctl up`",
        )
    console.poll()
    host_key = console.ssh_host_key
    port = qemu.forwarded_port(usernet())
    if host_key is None or port is None:
        raise GuestLost(
            "SSH server did not start",
            where=spec.name,
            hint="images not built by labctl need the options of guest/kconfig/ssh.config",
            console_tail=console.tail(),
        )
    return SshAddress("127.0.0.1", port, "root", key=spec.ssh_key, host_key=host_key)
