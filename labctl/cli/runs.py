"""Commands that measure, report, export and compare runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labctl import progress
from labctl.cli.root import (
    JSON,
    LAB,
    SCHEDULER,
    SHARE,
    ask_host,
    chosen,
    engine_of,
    format_option,
    lab_to_work,
    load_lab,
    print_json,
    setting_of,
)
from labctl.errors import UserError
from labctl.lab.use import Use
from labctl.stats.run_noise import RUN_SD

if TYPE_CHECKING:
    from labctl.lab.models import Lab
    from labctl.reports.against import Against


@click.command()
@LAB
@JSON
@click.option("--seed", type=int, help="Seed of the order of cells [default: random].")
@click.option("--target", metavar="NAME", help="Measure on this target of lab.yaml, not in guests.")
@click.option("--resume", "resumed", metavar="RUN", help="Continue an interrupted run.")
@click.option(
    "--why",
    is_flag=True,
    help="Then measure with the observers that slow the kernel, in kernels built for them.",
)
@SCHEDULER
@click.argument("experiments", nargs=-1)
def run(
    lab_path: Path | None,
    as_json: bool,
    seed: int | None,
    target: str | None,
    resumed: str | None,
    why: bool,
    scheduler: str | None,
    experiments: Sequence[str],
) -> None:
    """Measure EXPERIMENTS (default: all), report differences.

    Each block boots every kernel again and measures the cells in random order.
    While one guest is measured, the others are paused. A target runs one kernel at a
    time, so there a block starts the kernels one after the other by kexec. Each sample
    is written to disk before the next one starts; `--resume` continues an interrupted
    run.

    `--why` measures the experiments once more after the run, with functions, lock_stat,
    perf and stacks if `observe:` in lab.yaml lists them, else with functions. `labctl explain`
    then has the functions or locks whose time changed.

    With `--scheduler`, workers on other hosts measure whole blocks, as many at the same time as
    there are hosts; see `labctl workers`. The samples are stored here as if they were
    measured here.

    Exit status 1 if a cell is slower, a sample failed, or the A/A control differs.
    """
    if resumed and (experiments or seed is not None or target or why):
        raise click.UsageError("--resume conflicts with EXPERIMENTS, --seed, --target and --why")
    ask_host()
    from labctl.experiments import session
    from labctl.experiments.target import with_target
    from labctl.reports.explain import explanation_of
    from labctl.reports.explanation import render

    lab = lab_to_work(lab_path, is_local=False)
    with progress.Measuring() as shown, engine_of(lab, scheduler, shown.say) as engine:
        events = shown.events()
        if resumed:
            folder = session.resume(lab, resumed, events=events, engine=engine)
        else:
            names = chosen(lab, experiments)
            lab = with_target(lab, names, target)
            folder = session.run(lab, names, seed=seed, events=events, why=why, engine=engine)
    if why and not as_json:
        explanation = render(explanation_of(lab.state_folder.runs, folder.id))
        click.echo(explanation)  # and an empty line before the report
    show_report(lab, folder.id, as_json=as_json)


@click.command()
@LAB
@JSON
@format_option(
    "markdown",
    "cover-letter",
    "html",
    about="cover-letter is plain text in 72 columns, html is one page with plots.",
)
@click.option(
    "--baseline",
    metavar="KERNEL",
    help="Kernel of the run to compare with [default: the experiment's baseline].",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Setting that selects the cell of --baseline (repeatable).",
)
@click.argument("run_id", metavar="[RUN]", default="latest")
def report(
    lab_path: Path | None,
    as_json: bool,
    style: str,
    baseline: str | None,
    settings: Sequence[str],
    run_id: str,
) -> None:
    """Report the results of RUN (default: latest). Does not need QEMU.

    With `--baseline`, the A/A control stays that of the run's own baseline.

    Exit status 1 if a cell is slower, a sample failed, or the A/A control differs.
    """
    if settings and baseline is None:
        raise click.UsageError("--set needs --baseline")
    against = None
    if baseline is not None:
        from labctl.reports.against import Against

        against = Against(baseline, dict(map(setting_of, settings)))
    lab = load_lab(lab_path, Use.READS)
    show_report(lab, run_id, as_json=as_json, style=style, against=against)


@click.command()
@LAB
@click.option(
    "--format",
    "style",
    type=click.Choice(["benchfmt", "pyperf", "junit", "kcidb", "csv", "parquet"]),
    required=True,
    help="Output format: benchfmt for benchstat, JSON for pyperf or kcidb, junit for CI, csv or "
    "parquet with all samples.",
)
@click.option("--kernel", help="Only samples of this kernel, for example for `pyperf compare_to`.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Output file [default: stdout].",
)
@click.argument("run_id", metavar="[RUN]", default="latest")
def export(
    lab_path: Path | None, style: str, kernel: str | None, output: Path | None, run_id: str
) -> None:
    """Print RUN (default: latest) in another tool's format.

    These tools treat boots or repetitions as independent and ignore blocks. Their
    results are for reference only; `labctl report` has the verdict.
    """
    from labctl.reports.report import export_of, write

    content, notes = export_of(
        load_lab(lab_path, Use.READS).state_folder.runs, run_id, style, kernel=kernel
    )
    for note in notes:
        click.echo(f"labctl: {note}", err=True)
    if output is not None:
        write(output, content)
    elif isinstance(content, bytes) and sys.stdout.isatty():
        raise UserError(f"{style} is a binary format", hint="write a file: --output FILE")
    else:
        click.echo(content, nl=False)


@click.command()
@LAB
@JSON
@format_option("markdown", about="markdown suits a mail or an issue.")
@click.option(
    "--run-noise",
    type=SHARE,
    metavar="SHARE",
    default=RUN_SD,
    show_default=f"{100 * RUN_SD:g}%, more than was measured",
    help="Standard deviation of a ratio between runs of the same kernels.",
)
@click.argument("first")
@click.argument("second", default="latest")
def compare(
    lab_path: Path | None, as_json: bool, style: str, run_noise: float, first: str, second: str
) -> None:
    """Compare two stored runs.

    The runs may be from different days, hosts or versions of a series.
    FIRST is the older run, SECOND (default: latest) the newer one. The ratios of the
    runs are compared, each measured against the baseline of its own run. Times are
    shown only if host, QEMU and baseline are the same. Runs with different
    accelerators are rejected. Experiments whose workload, guest, baseline or setting
    differ are skipped.

    All blocks of a run share noise that its own intervals do not contain. The interval of
    a change contains it, as far as --run-noise is true.

    Exit status 1 if a cell became slower relative to its baseline or a kernel of the
    second run crashes more often than its baseline, 2 if nothing can be compared.
    """
    from labctl.reports import two_runs
    from labctl.reports.report import document_of
    from labctl.stats.between_runs import across
    from labctl.stats.by_metric import is_further
    from labctl.stats.kinds import Verdict

    folder = load_lab(lab_path, Use.READS).state_folder.runs
    content = across(document_of(folder, first), document_of(folder, second), run_noise)
    if as_json:
        print_json(content)
    else:
        click.echo(two_runs.render(content, style), nl=False)
    first_metrics = [each for each in content.experiments if not is_further(each.name)]
    cells = [cell for each in first_metrics for cell in each.cells]
    is_slower = any(cell.verdict is Verdict.SLOWER for cell in cells)
    if is_slower or any(each.crashes_now for each in content.experiments):
        sys.exit(1)


def show_report(
    lab: Lab,
    run_id: str,
    *,
    as_json: bool,
    style: str = "terminal",
    against: Against | None = None,
) -> None:
    """Print the report of a run; exit with 1 if it found a problem."""
    from labctl.reports.report import document_of, found_a_problem, report_of

    runs = lab.state_folder.runs
    if as_json:
        document = document_of(runs, run_id, against)
        print_json(document)
    else:
        document, text = report_of(runs, run_id, style, against)
        click.echo(text, nl=False)
    if found_a_problem(document):
        sys.exit(1)


COMMANDS = (run, report, compare, export)
