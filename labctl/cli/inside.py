"""Commands for one guest of `up`: its console, an SSH session, gdb on its kernel."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labctl.arch import ARCHITECTURES, Architecture
from labctl.cli import terminal
from labctl.cli.root import LAB, check_awake, fleet_of, load_lab
from labctl.errors import UserError
from labctl.lab.use import Use
from labctl.printable import COLOURS_OFF, Coloured, coloured

if TYPE_CHECKING:
    from labctl.guests.fleet import Fleet

_KEYBOARD = 0
_FOLLOW_SECONDS = 0.1
_GDB_SOCKET = "gdb.sock"
_KNOWN_HOSTS = "known_hosts"


@click.command()
@LAB
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    help="Print the last N lines and exit [default: 100 without --follow].",
    metavar="N",
)
@click.option("-f", "--follow", is_flag=True, help="Follow even without a terminal.")
@click.argument("guest")
def console(lab_path: Path | None, lines: int | None, follow: bool, guest: str) -> None:
    """Show a GUEST's console.

    On a terminal, follow the console until Ctrl-] or Ctrl-C. With -n, or if stdout is
    not a terminal, print the last lines. The console is read-only; use `exec` or `ssh`
    to run commands. Only colour escape sequences are passed to the terminal; the log
    file keeps all of them.
    """
    from labctl.guests import qemu
    from labctl.transports.console import Console

    fleet = fleet_of(load_lab(lab_path, Use.READS))
    path = fleet.spec_folder(guest) / qemu.CONSOLE_LOG
    if not path.exists():
        raise UserError(f"no console of guest {guest}", hint="list guests with `labctl status`")
    if follow or (lines is None and sys.stdout.isatty()):
        _follow(fleet, guest, path, 20 if lines is None else lines)
    else:
        tail = Console(path).tail(100 if lines is None else lines)
        click.echo(coloured("\n".join(tail)))


def _follow(fleet: Fleet, guest: str, path: Path, lines: int) -> None:
    from labctl.transports.console import Follower

    follower, shown = Follower(path, lines), Coloured()
    with terminal.keys(_KEYBOARD), _colours_ended():
        if os.isatty(_KEYBOARD):
            click.echo(f"console of {guest}: press Ctrl-] or Ctrl-C to leave", err=True)
        while True:
            runs = fleet.running(guest)  # before the read, which then gets the last output too
            click.echo(shown.feed(follower.read()), nl=False)
            if not runs:
                click.echo(f"{guest} has exited", err=True)
                return
            if terminal.detached(_KEYBOARD, _FOLLOW_SECONDS):
                return


@contextlib.contextmanager
def _colours_ended() -> Iterator[None]:
    try:
        yield
    finally:
        if sys.stdout.isatty():
            click.echo(COLOURS_OFF, nl=False)


@click.command(context_settings={"ignore_unknown_options": True})
@LAB
@click.argument("guest")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(lab_path: Path | None, guest: str, command: Sequence[str]) -> None:
    """Log in to a GUEST of `up`, or run COMMAND there.

    Needs `transport: ssh` in lab.yaml; `exec` works with every transport. A single
    word is run by the guest's shell; several words are run without a shell.

    \b
    Examples:
      labctl ssh stock                 a shell
      labctl ssh stock -- top          a full-screen program
    """  # noqa: D301 - click wants the character itself
    from labctl import proc
    from labctl.guests import login

    fleet = fleet_of(load_lab(lab_path, Use.READS))
    with fleet.guest(guest) as running:
        address = running.ssh_address()
        check_awake(running)
    on_terminal = os.isatty(_KEYBOARD) and sys.stdout.isatty()
    known_hosts = fleet.spec_folder(guest) / _KNOWN_HOSTS
    argv = login.client(address, known_hosts, command, terminal=on_terminal)
    sys.exit(proc.foreground(argv))


@click.command(context_settings={"ignore_unknown_options": True})
@LAB
@click.argument("kernel")
@click.argument("gdb_options", nargs=-1, type=click.UNPROCESSED)
def gdb(lab_path: Path | None, kernel: str, gdb_options: Sequence[str]) -> None:
    """Attach gdb to the guest of KERNEL.

    gdb loads the kernel's symbols and the lx- commands.
    The guest is paused while gdb is attached and resumes when gdb detaches. The kernel
    needs the options of guest/kconfig/gdb.config. Arguments after KERNEL are passed to
    gdb.

    \b
    Examples:
      labctl gdb stock
      labctl gdb stock -- -batch -ex lx-version -ex 'info threads'
    """  # noqa: D301 - click wants the character itself
    from labctl import proc
    from labctl.guests import gdb as gdb_server
    from labctl.guests.initramfs import source_folder
    from labctl.kernels import images, symbols

    fleet = fleet_of(load_lab(lab_path, Use.READS))
    folder = fleet.spec_folder(kernel)
    with fleet.guest(kernel) as running:
        vmlinux = symbols.of(running.spec.image.bzimage)
        if vmlinux is None:
            raise UserError(
                f"the image of kernel {kernel} has no debug information for gdb",
                hint=f"add {source_folder()}/kconfig/gdb.config to the kernel's `kconfig:` in "
                "lab.yaml; `labctl up` then builds and boots it",
            )
        images.check_symbols(vmlinux)
        program = _gdb_for(ARCHITECTURES[running.spec.image.arch])
        check_awake(running)
        gdb_server.serve(running, _GDB_SOCKET)
    words = [program, "-q", "-iex", f"add-auto-load-safe-path {vmlinux.parent}", str(vmlinux)]
    with fleet.held(kernel):
        # A socket path is limited to 107 bytes; the folder's path can be longer.
        words += ["-ex", f"target remote ./{_GDB_SOCKET}", *gdb_options]
        status = proc.foreground(words, cwd=folder)
    sys.exit(status)


def _gdb_for(arch: Architecture) -> str:
    """Return the name of the gdb program for guests of `arch`."""
    if not arch.is_foreign:
        return "gdb"
    from labctl.host import tools

    tools.check_installed(["gdb-multiarch"], arch)
    return "gdb-multiarch"


COMMANDS = (console, ssh, gdb)
