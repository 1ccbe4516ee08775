"""Commands for guests kept by `labctl up`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from labctl import progress
from labctl.cli.root import (
    DURATION,
    JSON,
    LAB,
    ask_host,
    check_awake,
    fleet_of,
    kernels_of,
    lab_to_work,
    load_lab,
    print_json,
)
from labctl.errors import UserError
from labctl.lab.use import Use
from labctl.printable import Coloured, layout

if TYPE_CHECKING:
    from labctl.arch import Architecture
    from labctl.guests.disks import Disk
    from labctl.guests.fleet import Fleet
    from labctl.lab.models import Lab
    from labctl.transports import Output

_WATCH_STEPS = 2  # sleeps of one second each, so that signals are handled in between


@click.command()
@LAB
@JSON
@click.option(
    "--timeout", type=DURATION, default="3min", show_default=True, help="Time limit for booting."
)
@click.argument("kernels", nargs=-1)
def up(lab_path: Path | None, as_json: bool, timeout: float, kernels: Sequence[str]) -> None:
    """Build and boot KERNELS (default: all), keep them running.

    Running guests that match lab.yaml are left alone; a guest whose kernel or
    topology changed is restarted.

    Use `exec` to run commands in the guests, `status` to list them and `down` to stop
    them. They are paused during a run.
    """
    ask_host()
    from labctl.guests import scratch
    from labctl.guests.fleet import UNCHANGED
    from labctl.guests.limits import Limits
    from labctl.guests.prepare import arch_of, prepare

    lab = lab_to_work(lab_path)
    fleet = fleet_of(lab)
    names = kernels_of(lab, kernels)
    topology = lab.guests[lab.defaults.guest]
    scratch.check_space(lab, topology, len(names))
    limits = Limits({name: [topology] for name in names})
    with progress.Building() as building:
        files, roots = _brought(lab, arch_of(lab, names))
        prepared = prepare(lab, names, building, files, limits, roots)
    specs = [
        prepared.spec(name, name=name, folder=fleet.spec_folder(name), topology=topology)
        for name in names
    ]
    done = fleet.up(specs, timeout)
    for name, what in done.items():
        click.echo(f"{name}: {what}", err=True)
    _show_status(fleet, as_json, [name for name, what in done.items() if what != UNCHANGED])


def _brought(lab: Lab, arch: Architecture) -> tuple[dict[str, Path | str], dict[str, Disk]]:
    """Return the files and roots of workloads; importing what finds them takes 50 ms."""
    if not any(workload.may_bring_files for workload in lab.workloads.values()):
        return {}, {}
    from labctl.experiments.early import supplies_of_lab
    from labctl.workloads.supply import merged, roots

    supplies = supplies_of_lab(lab, arch)
    return merged(supplies), roots(supplies)


@click.command()
@LAB
@JSON
@click.option("-w", "--watch", is_flag=True, help="Refresh every 2 s until Ctrl-C.")
def status(lab_path: Path | None, as_json: bool, watch: bool) -> None:
    """Show the guests of `up`.

    Prints the state, process and kernel of each guest, and the number of warnings of
    its kernel.
    """
    fleet = fleet_of(load_lab(lab_path, Use.READS))
    if not watch:
        _show_status(fleet, as_json)
        return
    if as_json:
        raise UserError(
            "--watch conflicts with --json", hint="call `labctl status --json` repeatedly"
        )
    with contextlib.suppress(KeyboardInterrupt), progress.Watching() as watching:
        while True:
            watching.show(_as_table(fleet.status()))
            for _ in range(_WATCH_STEPS):
                time.sleep(1.0)


@click.command("exec", context_settings={"ignore_unknown_options": True})
@LAB
@JSON
@click.option("--timeout", type=DURATION, default="10min", show_default=True, help="Time limit.")
@click.argument("guest")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    lab_path: Path | None, as_json: bool, timeout: float, guest: str, command: Sequence[str]
) -> None:
    """Run COMMAND in a GUEST of `up` and return its exit status.

    Standard input and output are streamed. A single word is run by the guest's shell;
    several words are run without a shell. On a terminal, only colour escape sequences
    are shown.
    """
    fleet = fleet_of(load_lab(lab_path, Use.READS))
    argv = command[0] if len(command) == 1 else list(command)
    stdin = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.fileno()
    output = None if as_json else _passing(sys.stdout, sys.stderr)
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


def _passing(stdout: TextIO, stderr: TextIO) -> Output:
    """Return a function that passes the output of a command on.

    A terminal gets colours and no other escape sequences; files and pipes get all bytes.
    """
    streams = {1: stdout, 2: stderr}
    shown = {number: Coloured() for number, stream in streams.items() if stream.isatty()}

    def pass_on(number: int, data: bytes) -> None:
        stream = streams[number]
        if number in shown:
            # Text after a carriage return would hide what was shown before it.
            stream.write(shown[number].feed(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")))
        else:
            stream.buffer.write(data)
        stream.flush()

    return pass_on


@click.command()
@LAB
@click.argument("guests", nargs=-1)
def down(lab_path: Path | None, guests: Sequence[str]) -> None:
    """Stop GUESTS of `up` (default: all).

    In a state folder that labctl did not create, the folders of the guests are kept.
    """
    from labctl.guests.locks import tidy
    from labctl.host.state_folder import is_fit

    lab = load_lab(lab_path, Use.ENDS)
    fleet = fleet_of(lab)
    for name in guests or fleet.names():
        if is_fit(lab.state):
            fleet.down(name)
            click.echo(layout(f"{name} is down"))
        else:
            fleet.end(name)
            click.echo(layout(f"{name} is down; its folder is kept: {fleet.spec_folder(name)}"))
    if is_fit(lab.state):
        tidy(fleet.folder)


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
        return "no guests running; start them with `labctl up`"
    return progress.table(shown, shorten=("image",))


COMMANDS = (up, status, exec_, down)
