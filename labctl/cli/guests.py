"""Commands for guests that stay: to look around in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labctl import screen
from labctl.cli.root import JSON, LAB, fleet_of, kernels_of, load_lab, print_json
from labctl.errors import UserError

if TYPE_CHECKING:
    from labctl.guests.fleet import Fleet


@click.command()
@LAB
@JSON
@click.option("--timeout", default=180.0, show_default=True, help="Seconds a guest may boot.")
@click.argument("kernels", nargs=-1)
def up(lab_path: Path | None, as_json: bool, timeout: float, kernels: Sequence[str]) -> None:
    """Build and boot KERNELS (all, if none is named) and leave them running.

    `exec` runs commands in them, `status` shows them, `down` ends them. While a
    run measures they are paused.
    """
    from labctl.guests.prepare import prepare

    lab = load_lab(lab_path)
    fleet = fleet_of(lab)
    names = [name for name in kernels_of(lab, kernels) if not (fleet.running(name) and not kernels)]
    if names:
        with screen.Building() as building:
            prepared = prepare(lab, names, building)
        topology = lab.guests[lab.defaults.guest]
        specs = [
            prepared.spec(name, name=name, folder=fleet.spec_folder(name), topology=topology)
            for name in names
        ]
        fleet.up(specs, timeout)
    _show_status(fleet, as_json)


@click.command()
@LAB
@JSON
def status(lab_path: Path | None, as_json: bool) -> None:
    """Show the guests of `up`: state, process, kernel, and what the kernel complained of."""
    _show_status(fleet_of(load_lab(lab_path)), as_json)


@click.command("exec", context_settings={"ignore_unknown_options": True})
@LAB
@JSON
@click.option("--timeout", default=600.0, show_default=True, help="Seconds it may take.")
@click.argument("guest")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    lab_path: Path | None, as_json: bool, timeout: float, guest: str, command: Sequence[str]
) -> None:
    """Run COMMAND in a GUEST of `up`; its output and exit status become ours.

    One word is given to the guest's shell, several are run as they are.
    """
    fleet = fleet_of(load_lab(lab_path))
    argv = command[0] if len(command) == 1 else list(command)
    with fleet.guest(guest) as running:
        stdin = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
        outcome = running.run(argv, timeout_seconds=timeout, stdin=stdin)
    if as_json:
        print_json(
            {"schema": 1, "guest": guest, "status": outcome.status, "seconds": outcome.seconds,
             "stdout": outcome.stdout.decode("utf-8", "replace"),
             "stderr": outcome.stderr.decode("utf-8", "replace")}
        )  # fmt: skip
    else:
        sys.stdout.buffer.write(outcome.stdout)
        sys.stderr.buffer.write(outcome.stderr)
        sys.stdout.flush()
    sys.exit(outcome.status)


@click.command()
@LAB
@click.option("-n", "--lines", default=100, show_default=True, help="How many of the last lines.")
@click.argument("guest")
def console(lab_path: Path | None, lines: int, guest: str) -> None:
    """Print the end of a guest's console."""
    from labctl.guests import qemu
    from labctl.transports.console import Console

    fleet = fleet_of(load_lab(lab_path))
    path = fleet.spec_folder(guest) / qemu.CONSOLE_LOG
    if not path.exists():
        raise UserError(f"no guest {guest} has a console", hint="`labctl status` lists the guests")
    click.echo("\n".join(Console(path).tail(lines)))


@click.command()
@LAB
@click.argument("guests", nargs=-1)
def down(lab_path: Path | None, guests: Sequence[str]) -> None:
    """End GUESTS of `up` (all, if none is named)."""
    fleet = fleet_of(load_lab(lab_path))
    for name in guests or fleet.names():
        fleet.down(name)
        click.echo(f"{name} is down")


def _show_status(fleet: Fleet, as_json: bool) -> None:
    rows = fleet.status()
    if as_json:
        print_json({"schema": 1, "guests": rows})
    elif rows:
        shown = [
            {"guest": r["name"], "state": r["state"], "pid": r["pid"], "release": r["release"],
             "image": r["image"], "accel": r["accel"], "complaints": len(r["complaints"])}
            for r in rows
        ]  # fmt: skip
        click.echo(screen.table(shown, shorten=("image",)))
    else:
        click.echo("no guest is up; `labctl up` starts the lab's kernels")


COMMANDS = (up, status, exec_, console, down)
