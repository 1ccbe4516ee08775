"""`labctl workers` and `labctl worker`: the hosts that measure for a Dask scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labctl import progress
from labctl.cli.root import JSON, LAB, find_lab, load_lab, print_json
from labctl.errors import HostError, UserError
from labctl.lab.use import Use

if TYPE_CHECKING:
    from labctl.scheduler.listing import Listed

_ADDRESS = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler: tls://HOST:PORT, tcp://HOST:PORT on loopback, or a scheduler file "
    "[default: scheduler of lab.yaml].",
)


@click.command()
@LAB
@_ADDRESS
@JSON
def workers(lab_path: Path | None, scheduler: str | None, as_json: bool) -> None:
    """List the workers of a scheduler.

    Each one with what it does, the doctor's verdict on its host, the number of blocks since
    its start, and the mean ratio of its A/A control with the spread between blocks. The
    doctor tests the hosts of idle workers once.
    """
    from labctl.scheduler.client import connected
    from labctl.scheduler.listing import listed

    with connected(*_scheduler(lab_path, scheduler)) as connection:
        found = listed(connection)
        address = connection.address
    if as_json:
        content = [one.document() for one in found]
        print_json({"schema": 1, "scheduler": address, "workers": content})
    elif found:
        click.echo(progress.table([_row(one) for one in found]))
    else:
        click.echo(f"no workers at {address}")


def _row(one: Listed) -> dict[str, object]:
    control = None if one.aa_ratio is None else f"{one.aa_ratio:.3f}"
    if control is not None and one.aa_spread is not None:
        control += f" +- {100 * one.aa_spread:.1f} %"
    return {
        "worker": one.name,
        "does": one.doing,
        "doctor": one.doctor,
        "blocks": one.blocks,
        "A/A": control,
    }


@click.command()
@LAB
@_ADDRESS
@click.option("--name", help="Name of this host in reports [default: its host name].")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of images and guests [default: ~/.cache/labctl/worker].",
)
def worker(
    lab_path: Path | None, scheduler: str | None, name: str | None, folder: Path | None
) -> None:
    """Measure on this host for the runs of a scheduler, until Ctrl-C.

    It measures one block at a time, and waits for other measurements on this host. The runs
    send their kernels. Whoever can connect to the scheduler can run programs here as this user:
    see docs/howto/scheduler.md.
    """
    import asyncio

    from labctl.scheduler.address import address_of
    from labctl.scheduler.place import PLACE
    from labctl.scheduler.serve import serve

    address = address_of(*_scheduler(lab_path, scheduler))
    if folder is not None:
        PLACE.given_folder = folder.absolute()
    chosen = name or PLACE.name
    click.echo(f"worker {chosen} of {address}, files in {PLACE.folder}", err=True)
    try:
        asyncio.run(serve(address, chosen))
    except (OSError, TimeoutError) as error:
        why = str(error) or "no response"
        raise HostError(f"cannot connect to the scheduler at {address}: {why}") from error
    raise HostError(f"the scheduler at {address} ended the worker, or is gone")


def _scheduler(lab_path: Path | None, given: str | None) -> tuple[str, Path]:
    """Return the scheduler and the folder that a relative path in it starts from."""
    if given is not None:
        return given, Path()
    path = lab_path or find_lab()
    lab = load_lab(path, Use.READS) if path is not None else None
    if lab is None or lab.scheduler is None:
        raise UserError("no scheduler", hint="pass --scheduler ADDRESS, or set it in lab.yaml")
    return lab.scheduler, lab.root


COMMANDS = (workers, worker)
