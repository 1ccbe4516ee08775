"""Commands for guests that stay: to look around in."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl import screen
from labctl.cli.root import (
    JSON,
    LAB,
    SECONDS,
    check_awake,
    fleet_of,
    kernels_of,
    lab_to_work,
    load_lab,
    print_json,
)
from labctl.errors import UserError
from labctl.lab_use import Use
from labctl.printable import layout

if TYPE_CHECKING:
    from labctl.guests.fleet import Fleet

_WATCH_STEPS = 2  # of a second each: a signal is heard between them


@click.command()
@LAB
@JSON
@click.option(
    "--timeout", type=SECONDS, default=180.0, show_default=True, help="Seconds a guest may boot."
)
@click.argument("kernels", nargs=-1)
def up(lab_path: Path | None, as_json: bool, timeout: float, kernels: Sequence[str]) -> None:
    """Build and boot KERNELS (all, if none is named) and leave them running.

    What runs already and is still what lab.yaml says is left alone; a guest whose
    kernel or shape changed is started again.

    `exec` runs commands in them, `status` shows them, `down` ends them. While a
    run measures they are paused.
    """
    from labctl.guests.fleet import UNCHANGED
    from labctl.guests.limits import Limits
    from labctl.guests.prepare import prepare

    lab = lab_to_work(lab_path)
    fleet = fleet_of(lab)
    names = kernels_of(lab, kernels)
    topology = lab.guests[lab.defaults.guest]
    limits = Limits({name: [topology] for name in names})
    with screen.Building() as building:
        prepared = prepare(lab, names, building, limits=limits)
    specs = [
        prepared.spec(name, name=name, folder=fleet.spec_folder(name), topology=topology)
        for name in names
    ]
    done = fleet.up(specs, timeout)
    for name, what in done.items():
        click.echo(f"{name}: {what}", err=True)
    _show_status(fleet, as_json, [name for name, what in done.items() if what != UNCHANGED])


@click.command()
@LAB
@JSON
@click.option("-w", "--watch", is_flag=True, help="Show it again every 2 s, until Ctrl-C.")
def status(lab_path: Path | None, as_json: bool, watch: bool) -> None:
    """Show the guests of `up`: state, process, kernel, and what the kernel complained of."""
    fleet = fleet_of(load_lab(lab_path, Use.READS))
    if not watch:
        _show_status(fleet, as_json)
        return
    if as_json:
        raise UserError("--watch shows a table: it cannot be JSON", hint="call it repeatedly")
    with contextlib.suppress(KeyboardInterrupt), screen.Watching() as watching:
        while True:
            watching.show(_as_table(fleet.status()))
            for _ in range(_WATCH_STEPS):
                time.sleep(1.0)


@click.command("exec", context_settings={"ignore_unknown_options": True})
@LAB
@JSON
@click.option(
    "--timeout", type=SECONDS, default=600.0, show_default=True, help="Seconds it may take."
)
@click.argument("guest")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    lab_path: Path | None, as_json: bool, timeout: float, guest: str, command: Sequence[str]
) -> None:
    """Run COMMAND in a GUEST of `up`; its output and exit status become ours.

    Standard input and output are streamed. One word is given to the guest's shell,
    several are run as they are.
    """
    fleet = fleet_of(load_lab(lab_path, Use.READS))
    argv = command[0] if len(command) == 1 else list(command)
    stdin = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.fileno()
    output = None if as_json else _pass_on
    with fleet.guest(guest, patience_seconds=timeout) as running:
        check_awake(running)
        outcome = running.run(argv, timeout_seconds=timeout, stdin=stdin, output=output)
    if as_json:
        print_json(
            {"schema": 1, "guest": guest, "status": outcome.status, "seconds": outcome.seconds,
             "stdout": outcome.stdout.decode("utf-8", "replace"),
             "stderr": outcome.stderr.decode("utf-8", "replace")}
        )  # fmt: skip
    sys.exit(outcome.status)


def _pass_on(number: int, data: bytes) -> None:
    stream = sys.stdout.buffer if number == 1 else sys.stderr.buffer
    stream.write(data)
    stream.flush()


@click.command()
@LAB
@click.argument("guests", nargs=-1)
def down(lab_path: Path | None, guests: Sequence[str]) -> None:
    """End GUESTS of `up` (all, if none is named).

    In a state folder that labctl did not make, their folders are left.
    """
    from labctl.lab_state import is_fit

    lab = load_lab(lab_path, Use.ENDS)
    fleet = fleet_of(lab)
    for name in guests or fleet.names():
        if is_fit(lab.state):
            fleet.down(name)
            click.echo(layout(f"{name} is down"))
        else:
            fleet.end(name)
            click.echo(layout(f"{name} is down; its folder is left: {fleet.spec_folder(name)}"))


def _show_status(fleet: Fleet, as_json: bool, ready: Collection[str] = ()) -> None:
    rows = fleet.status(ready)
    if as_json:
        print_json({"schema": 1, "guests": rows})
    else:
        click.echo(_as_table(rows))


def _as_table(rows: Sequence[dict[str, Any]]) -> str:
    shown = [
        {"guest": r["name"], "state": r["state"], "pid": r["pid"], "release": r["release"],
         "image": r["image"], "accel": r["accel"], "complaints": len(r["complaints"])}
        for r in rows
    ]  # fmt: skip
    if not shown:
        return "no guest is up; `labctl up` starts the lab's kernels"
    return screen.table(shown, shorten=("image",))


COMMANDS = (up, status, exec_, down)
