"""Commands that measure, and tell what was measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labctl import screen
from labctl.cli.root import JSON, LAB, chosen, format_option, lab_to_work, load_lab, print_json
from labctl.errors import UserError
from labctl.lab_use import Use

if TYPE_CHECKING:
    from labctl.lab_models import Lab


@click.command()
@LAB
@JSON
@click.option("--seed", type=int, help="What the order of the cells is drawn from [default: new].")
@click.option("--target", metavar="NAME", help="Measure on this machine of the lab, not in guests.")
@click.option("--resume", "resumed", metavar="RUN", help="Go on with an interrupted run.")
@click.argument("experiments", nargs=-1)
def run(
    lab_path: Path | None,
    as_json: bool,
    seed: int | None,
    target: str | None,
    resumed: str | None,
    experiments: Sequence[str],
) -> None:
    """Measure EXPERIMENTS (all, if none is named) and report what differs.

    Each block boots every kernel afresh and visits its cells in a random order;
    while one guest is measured the others stand still. On a target, which runs one
    kernel at a time, a block starts kernel after kernel by kexec. Every sample is on the
    disk before the next begins: after Ctrl-C, `--resume` goes on.
    """
    from labctl.experiments import on_target, session

    if resumed and (experiments or seed is not None or target):
        raise click.UsageError("--resume goes on as the run began: no EXPERIMENT, --seed, --target")
    lab = lab_to_work(lab_path)
    with screen.Measuring() as shown:
        events = session.Events(
            building=shown.building,
            waiting=shown.waiting,
            started=shown.started,
            measuring=shown.measuring,
        )
        if resumed:
            folder = session.resume(lab, resumed, events=events)
        else:
            names = chosen(lab, experiments)
            lab = on_target.with_target(lab, names, target)
            folder = session.run(lab, names, seed=seed, events=events)
    _show_report(lab, folder.id, as_json=as_json)


@click.command()
@LAB
@JSON
@format_option(
    "markdown",
    "cover-letter",
    "html",
    about="cover-letter is plain text of 72 columns, html one page with plots.",
)
@click.argument("run_id", metavar="[RUN]", default="latest")
def report(lab_path: Path | None, as_json: bool, style: str, run_id: str) -> None:
    """Report a RUN (the latest, if none is named). Needs no QEMU."""
    _show_report(load_lab(lab_path, Use.READS), run_id, as_json=as_json, style=style)


@click.command()
@LAB
@click.option(
    "--format",
    "style",
    type=click.Choice(["benchfmt", "pyperf", "junit", "kcidb", "csv", "parquet"]),
    required=True,
    help="benchfmt for benchstat, pyperf JSON, junit for CI, kcidb JSON, csv or parquet of "
    "all samples.",
)
@click.option("--kernel", help="Only this kernel's samples, say for `pyperf compare_to`.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write [default: stdout].",
)
@click.argument("run_id", metavar="[RUN]", default="latest")
def export(
    lab_path: Path | None, style: str, kernel: str | None, output: Path | None, run_id: str
) -> None:
    """Print a RUN (the latest, if none is named) in another tool's format.

    Those tools take boots or repetitions as independent of each other, and know
    no blocks: they are witnesses, `labctl report` has the verdict.
    """
    from labctl.reports import report as reports

    content, notes = reports.export_of(
        load_lab(lab_path, Use.READS).state / "runs", run_id, style, kernel=kernel
    )
    for note in notes:
        click.echo(f"labctl: {note}", err=True)
    if output is not None:
        reports.write(output, content)
    elif isinstance(content, bytes) and sys.stdout.isatty():
        raise UserError(f"{style} is no text", hint="name a file: --output FILE")
    else:
        click.echo(content, nl=False)


@click.command()
@LAB
@JSON
@format_option("markdown", about="markdown for a mail or an issue.")
@click.argument("first")
@click.argument("second", default="latest")
def compare(lab_path: Path | None, as_json: bool, style: str, first: str, second: str) -> None:
    """Set two stored runs side by side, of other days, hosts or versions of a series.

    FIRST is the older run's name, SECOND (the latest, if none is named) the newer
    one's. Compared are ratios against the baseline, which each run has measured
    beside it; times only stand beside them if host, QEMU and baseline are the same.
    Not compared are runs under another accelerator, and experiments with another
    workload, guest, baseline or setting; the rest of the runs is.
    Exit status 1 if a cell has become slower against its baseline, 2 if nothing of
    the runs can be compared.
    """
    from labctl.reports import report as reports
    from labctl.reports import side_by_side
    from labctl.results.across import across

    folder = load_lab(lab_path, Use.READS).state / "runs"
    content = across(*(reports.document_of(folder, name) for name in (first, second)))
    if as_json:
        print_json(content)
    else:
        click.echo(side_by_side.render(content, style), nl=False)
    cells = [cell for each in content["experiments"] for cell in each["cells"]]
    if any(cell["verdict"] == "slower" for cell in cells):
        sys.exit(1)


def _show_report(lab: Lab, run_id: str, *, as_json: bool, style: str = "terminal") -> None:
    from labctl.reports import report as reports

    runs = lab.state / "runs"
    if as_json:
        document = reports.document_of(runs, run_id)
        print_json(document)
    else:
        document, text = reports.report_of(runs, run_id, style)
        click.echo(text, nl=False)
    if reports.found_a_problem(document):
        sys.exit(1)


COMMANDS = (run, report, compare, export)
