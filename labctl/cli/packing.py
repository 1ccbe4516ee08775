"""Commands that pack a lab for another machine, and import what was measured there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from labctl import progress
from labctl.cli.root import JSON, LAB, chosen, load_lab, print_json
from labctl.lab.use import Use

_ID_DIGITS = 12


@click.command()
@LAB
@JSON
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="lab.pyz",
    show_default=True,
    help="File to write.",
)
@click.option(
    "--with-qemu",
    is_flag=True,
    help="Include QEMU, its libraries and its firmware. Without it, the machine needs QEMU.",
)
@click.option(
    "--with-report",
    is_flag=True,
    help="Include numpy and scipy, so that `report` works on the machine, too.",
)
@click.argument("experiments", nargs=-1)
def pack(
    lab_path: Path | None,
    as_json: bool,
    output: Path,
    with_qemu: bool,
    with_report: bool,
    experiments: Sequence[str],
) -> None:
    """Pack EXPERIMENTS (default: all) into one file, to measure on another machine.

    Builds the kernels, the initramfs and the workloads, and writes them with labctl and
    the Python packages that a run needs. The other machine needs CPython of the same
    version, 64-bit x86 and glibc, but no root, no package and no network.

    \b
    Here:            labctl pack headline -o lab.pyz --with-qemu
    On the machine:  ./lab.pyz doctor
                     ./lab.pyz run headline
    Here:            labctl import RUN.labrun.tar.gz
                     labctl report latest

    numpy and scipy (45 MiB) are included for `--with-report` and for experiments that
    decide during the run how long they measure (`stop_at_half_width:`, `repetitions:
    auto`). Not supported: targets, `launcher: virtme-ng`, `transport: ssh`.
    """  # noqa: D301 - click wants the character itself
    from labctl.host import state
    from labctl.packing import build

    # READS: the guests need not fit into the memory of this host.
    lab = load_lab(lab_path, Use.READS)
    click.get_current_context().with_resource(state.used(lab.state))
    names = chosen(lab, experiments)
    with progress.Building() as shown:
        done = build.pack(
            lab,
            names,
            output,
            with_qemu=with_qemu,
            with_statistics=with_report,
            building=shown,
            say=shown.say,
        )
    size, record = done.path.stat().st_size, done.record
    if as_json:
        print_json(
            {"schema": 1, "pack": done.id, "path": str(done.path.absolute()), "bytes": size,
             "experiments": names, "python": record.python, "machine": record.machine,
             "qemu": record.qemu, "packages": record.packages,
             "kernels": {name: one.image for name, one in record.kernels.items()}}
        )  # fmt: skip
        return
    click.echo(f"wrote {done.path}: {size / 2**20:.0f} MiB, pack {done.id[:_ID_DIGITS]}")
    click.echo(f"experiments: {', '.join(names)}")
    click.echo(f"kernels: {', '.join(record.kernels)}")
    needs = f"CPython {record.python}, {record.machine}, glibc"
    needs += ", QEMU" if record.qemu is None else f"; QEMU {record.qemu} is included"
    click.echo(f"the machine needs: {needs}")
    for name, reason in done.statistics.items():
        click.echo(f"numpy and scipy are included: {name} has `{reason}`")
    click.echo(f"there: ./{done.path.name} doctor; ./{done.path.name} run {names[0]}")


@click.command("import")
@LAB
@JSON
@click.argument("result", type=click.Path(path_type=Path))
def import_(lab_path: Path | None, as_json: bool, result: Path) -> None:
    """Verify RESULT, which a packed lab wrote, and store its run.

    The lab must be the one that made the pack. These must be as `labctl pack` recorded
    them: lab.yaml, the plan, the hashes of images and initramfs, and of each sample the
    kernel and the cell. Each file must have the checksum that the manifest in RESULT has. A
    RESULT that differs is rejected, and nothing is stored.

    `labctl report` and `labctl compare` then read the run like any other. They state the
    host that measured it.
    """
    from labctl.host import state
    from labctl.packing.bring import bring
    from labctl.reports import words

    lab = load_lab(lab_path, Use.READS)
    click.get_current_context().with_resource(state.used(lab.state))
    done = bring(lab, result)
    run = done.folder.id
    if as_json:
        print_json(
            {"schema": 1, "run": run, "path": str(done.folder.path), "pack": done.pack,
             "host": words.host(done.record.host), "accel": done.record.accel,
             "finished": done.record.finished, "samples": done.statuses}
        )  # fmt: skip
        return
    counts = ", ".join(f"{count} {status}" for status, count in done.statuses.items()) or "none"
    click.echo(f"imported run {run}; samples: {counts}")
    click.echo(f"host: {words.host(done.record.host)}; {done.record.accel.upper()}")
    if not done.record.finished:
        click.echo("the run is not finished: `./lab.pyz run --resume` continues it there")
    click.echo(f"see it with `labctl report {run}`")


COMMANDS = (pack, import_)
