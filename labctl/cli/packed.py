"""The program of a packed lab: `./lab.pyz run`, on a machine without labctl."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from labctl import progress
from labctl.cli import ending
from labctl.cli.root import JSON, Group, named, print_json
from labctl.errors import BaselineFailed, HostError
from labctl.packing import libraries

if TYPE_CHECKING:
    from labctl.packing.measure import Pack
    from labctl.packing.result import Measured
    from labctl.runs.folder import RunFolder

_HOST_CANNOT = 3
_ID_DIGITS = 12
OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the result [default: RUN.labrun.tar.gz in the current folder].",
)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done; 1 a sample failed; 2 invalid input; 3 something is missing on "
    "this host; 70 internal error; 129, 130, 143 ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM.",
)
def lab() -> None:
    """Measure a Linux kernel patch series: a lab that `labctl pack` wrote.

    \b
      doctor                 check this machine and suggest fixes
      run EXPERIMENT         boot the kernels in QEMU, measure, write the result

    Everything that it creates is in .labctl-pack in the current folder, but for the result,
    RUN.labrun.tar.gz. Send that to the person whose lab this is.
    """  # noqa: D301 - click wants the character itself


@lab.command()
@JSON
@click.option("--seed", type=int, help="Seed of the order of cells [default: random].")
@click.option("--resume", "resumed", metavar="RUN", help="Continue an interrupted run.")
@OUTPUT
@click.argument("experiments", nargs=-1)
def run(
    as_json: bool,
    seed: int | None,
    resumed: str | None,
    output: Path | None,
    experiments: Sequence[str],
) -> None:
    """Measure EXPERIMENTS (default: all that are packed) and write the result.

    Each sample is written to disk before the next one starts; `--resume latest` continues
    an interrupted run. Do not use the machine for other work meanwhile.

    Exit status 1 if a sample failed.
    """
    from labctl.experiments import session
    from labctl.host import state

    if resumed and (experiments or seed is not None):
        raise click.UsageError("--resume conflicts with EXPERIMENTS and --seed")
    pack = _pack()
    found = pack.lab(_state())
    click.get_current_context().with_resource(state.used(found.state))
    with progress.Measuring() as shown:
        events = replace(shown.events(), preparing=pack.ready)
        try:
            if resumed:
                folder = session.resume(found, resumed, events=events)
            else:
                names = named("experiment", experiments, pack.record.experiments)
                folder = session.run(found, names, seed=seed, events=events)
        except BaselineFailed as error:
            error.hint = "`result` writes what was measured, with the consoles of the guests"
            raise
    measured = _written(folder, pack, output)
    if as_json:
        print_json(_document(folder, pack, measured))
    else:
        _show(measured)
    if measured.failed:
        sys.exit(1)


@lab.command()
@JSON
@OUTPUT
@click.argument("run_id", metavar="[RUN]", default="latest")
def result(as_json: bool, output: Path | None, run_id: str) -> None:
    """Write the result of RUN (default: latest) again, also of an interrupted run."""
    from labctl.runs.folder import resolve

    pack = _pack()
    folder = resolve(pack.lab(_state()).state_folder.runs, run_id)
    measured = _written(folder, pack, output)
    if as_json:
        print_json(_document(folder, pack, measured))
    else:
        _show(measured)


@lab.command()
@JSON
@click.argument("run_id", metavar="[RUN]", default="latest")
def report(as_json: bool, run_id: str) -> None:
    """Report RUN (default: latest), if the lab was packed with `--with-report`.

    Exit status 1 if a cell is slower, a sample failed, or the A/A control differs.
    """
    from labctl.cli.runs import show_report

    pack = _pack()
    if "numpy" not in pack.record.packages:
        raise HostError(
            "packed without the packages for reports",
            hint="`labctl import` and `labctl report` in the lab that made it, or pack it with "
            "`--with-report`",
        )
    show_report(pack.lab(_state()), run_id, as_json=as_json)


@lab.command()
@JSON
def doctor(as_json: bool) -> None:
    """Check this machine for the packed experiments and suggest fixes.

    Verifies the checksums of all files of the pack, boots probe guests without a kernel
    and adds up the memory for the guests of each experiment. Changes nothing.

    \b
    ok    tested and works
    warn  the lab works, but results are less reliable
    fail  the lab cannot work without it (exit status 3)
    """  # noqa: D301 - click wants the character itself
    from labctl.doctor import building, trials
    from labctl.doctor.diagnosis import Diagnosis, ok, worst
    from labctl.doctor.host_tests import HostTests
    from labctl.host import identity
    from labctl.host.facts import read_facts

    pack = _pack()
    found = pack.lab(_state())
    wanted = {n: one for n, one in found.experiments.items() if n in pack.record.experiments}
    found = found.model_copy(update={"experiments": wanted})
    with progress.Testing() as testing:
        testing.trying("the files of the pack")
        damaged = [str(path) for path in pack.damaged()]
        what = f"{len(pack.record.files)} files, pack {pack.id[:_ID_DIGITS]}"
        whole = ok("pack", what)
        if damaged:
            mend = f"rm -r {pack.site.parent}   # then start {sys.argv[0]} again"
            whole = Diagnosis("pack", "fail", f"changed: {', '.join(damaged[:3])}", mend)
        tests = HostTests(
            lab=found,
            state=found.state,
            facts=read_facts(),
            progress=testing.trying,
        )
        diagnoses = [whole, *tests.diagnoses(builds=False)]
        writable = building.state_folder(trials.write_error(found.state), str(found.state))
        diagnoses.append(writable)
    status = worst(diagnoses)
    if as_json:
        print_json(
            {"schema": 1, "pack": pack.id, "host": identity.describe().as_dict(),
             "status": status, "diagnoses": [one.document() for one in diagnoses]}
        )  # fmt: skip
    else:
        click.echo(progress.diagnoses(diagnoses))
    if status == "fail":
        sys.exit(_HOST_CANNOT)


def _pack() -> Pack:
    from labctl.packing.measure import Pack

    pack = Pack.found()
    pack.use_programs()
    return pack


def _state() -> Path:
    from labctl.packing import place

    return Path.cwd() / place.STATE


def _written(folder: RunFolder, pack: Pack, output: Path | None) -> Measured:
    from labctl.packing import place
    from labctl.packing.result import write

    return write(folder, pack, output or Path(f"{folder.id}{place.RESULT_SUFFIX}"))


def _document(folder: RunFolder, pack: Pack, measured: Measured) -> dict[str, object]:
    record = folder.read()
    return {
        "schema": 1,
        "run": folder.id,
        "pack": pack.id,
        "accel": record.accel,
        "finished": measured.is_finished,
        "samples": measured.statuses,
        "result": str(measured.path),
        "sha256": measured.sha256,
    }


def _show(measured: Measured) -> None:
    counts = ", ".join(f"{count} {status}" for status, count in measured.statuses.items())
    click.echo(f"samples: {counts or 'none'}")
    if not measured.is_finished:
        click.echo("the run is not finished: `run --resume latest` continues it")
    click.echo(f"wrote {measured.path}")
    click.echo(f"SHA-256 {measured.sha256}")
    click.echo(f"send it home: `labctl import {measured.path.name}`")


def main() -> NoReturn:
    """Entry point of a packed lab."""
    libraries.load()
    ending.run(lambda: lab.main(standalone_mode=False, prog_name=Path(sys.argv[0]).name))
