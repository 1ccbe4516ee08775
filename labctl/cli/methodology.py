"""Commands that validate the statistical method, by simulation and on stored runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl import __version__, progress
from labctl.cli.root import (
    JSON,
    LAB,
    Group,
    format_option,
    load_lab,
    print_json,
)
from labctl.errors import HostError
from labctl.lab.use import Use

if TYPE_CHECKING:
    from labctl.methodology.noise import ExperimentNoise


_FORMAT = format_option(
    "markdown", about="markdown is the form in docs/explanation/methodology.md."
)
_RUNS = click.option(
    "--runs",
    type=click.IntRange(min=2),
    default=2000,
    show_default=True,
    help="Number of simulated runs of each kind.",
)
_SEED = click.option("--seed", type=click.IntRange(min=0), default=20170315, show_default=True)


@click.group("methodology", cls=Group)
def methodology() -> None:
    """Validate the statistical method."""


@methodology.command("simulate")
@JSON
@LAB
@_FORMAT
@click.option(
    "--runs",
    type=click.IntRange(min=2),
    default=2000,
    show_default=True,
    help="Number of simulated runs of each kind; 2000 take about 5 minutes.",
)
@_SEED
@click.option(
    "--cells",
    type=click.IntRange(1, 100),
    default=12,
    show_default=True,
    help="Number of cells compared with the baseline.",
)
@click.option(
    "--noise",
    "noise_of",
    metavar="RUN",
    help="Simulate the noise of RUN (see `labctl methodology noise`) [default: built-in noise].",
)
@click.option(
    "--plots",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Also write SVG plots to FOLDER.",
)
def methodology_simulate(
    lab_path: Path | None,
    as_json: bool,
    style: str,
    runs: int,
    seed: int,
    cells: int,
    noise_of: str | None,
    plots: Path | None,
) -> None:
    """Measure the error rates of the statistics on simulated runs.

    Simulates runs of 12 cells with the noise of real guests and with worse noise, and
    analyses them like real runs. 93 to 97 % of the 95 % intervals must contain the true
    value, at most 5 % of the runs without any change may report a difference, and at most
    5 % of the runs with changes of the minimum effect a cell that is the same. So also for
    blocks of several hosts, between which effects differ. Exit status 1 if a limit is
    exceeded. Does not need QEMU; only --noise needs a lab.
    """
    from labctl.lab.statistics import Statistics
    from labctl.methodology import text
    from labctl.methodology.hosts import simulate_hosts
    from labctl.methodology.noise import NOISES
    from labctl.methodology.runs import DESIGNS, simulate
    from labctl.stats.verdict import Rule

    usual = Statistics()
    noises = [one.noise for one in _noises(lab_path, noise_of)] if noise_of else NOISES
    with progress.Simulating() as shown:
        found = list(
            simulate(
                runs=runs,
                seed=seed,
                rule=Rule.of(usual.confidence, usual.minimum_effect),
                noises=noises,
                designs=[replace(design, cells=cells) for design in DESIGNS],
                report=lambda kind, done: shown(kind, done, runs),
            )
        )
        hosts = list(
            simulate_hosts(
                runs=runs,
                seed=seed,
                rule=Rule.of(usual.confidence, usual.minimum_effect),
                cells=cells,
                noises=noises[: None if noise_of else 1],
                report=lambda kind, done: shown(kind, done, runs),
            )
        )
    if plots:
        _write_plots(plots, text.plot_files(found))
    if as_json:
        kinds, on_hosts = ([one.document() for one in each] for each in (found, hosts))
        about = {"schema": 1, "runs": runs, "seed": seed, "cells": cells}
        print_json(about | {"kinds": kinds, "hosts": on_hosts})
    else:
        click.echo(text.as_table(found, style))
        click.echo(f"\nSeveral hosts:\n\n{text.hosts_table(hosts, style)}")
        plural = "" if cells == 1 else "s"
        click.echo(f"\n{runs} runs each of {cells} cell{plural}, seed {seed}, labctl {__version__}")
    if not all([one.kept for one in found] + [one.kept for one in hosts]):
        sys.exit(1)


@methodology.command("nightly")
@JSON
@format_option("markdown", about="markdown is the form in docs/explanation/nightly.md.")
@click.option(
    "--histories",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Number of simulated histories of each kind; 200 take 1 to 2 minutes.",
)
@_SEED
def methodology_nightly(as_json: bool, style: str, histories: int, seed: int) -> None:
    """Measure the error rates of `nightly` on simulated runs.

    The ratio of a nightly run has a spread of 3 %, and 3 of 100 nightly runs are off by
    50 %. At most 5 % of the histories of 90 nightly runs without a change may report one,
    and at least 90 % must report a regression of 10 % within 6 nightly runs. Exit status
    1 if a limit is exceeded. Needs neither a lab nor QEMU.
    """
    from labctl.lab.statistics import Statistics
    from labctl.methodology import text
    from labctl.methodology.nightly import simulate
    from labctl.stats.verdict import Rule

    usual = Statistics()
    rule = Rule.of(usual.confidence, usual.minimum_effect)
    with progress.Simulating() as shown:
        found = list(
            simulate(
                histories=histories,
                seed=seed,
                rule=rule,
                report=lambda kind, done: shown(kind, done, histories),
            )
        )
    if as_json:
        print_json(
            {"schema": 1, "histories": histories, "seed": seed,
             "scenarios": [one.document() for one in found]}
        )  # fmt: skip
    else:
        click.echo(text.nights_as_table(found, style))
        click.echo(f"\n{histories} histories each, seed {seed}, labctl {__version__}")
    if not all(one.kept for one in found):
        sys.exit(1)


@methodology.command("speed")
@JSON
@_FORMAT
@_RUNS
@_SEED
def methodology_speed(as_json: bool, style: str, runs: int, seed: int) -> None:
    """Compare the precision after the same time with that of the usual way.

    The usual way is to run the baseline several times, then the other kernel. Simulates one
    compared kernel, with boots that take as long as two repetitions. The measure is the
    half-width that an interval needs to contain the true value in 95 % of the runs. Needs
    neither a lab nor QEMU.
    """
    from labctl.methodology import text
    from labctl.methodology.speed import speeds

    found = list(speeds(runs=runs, seed=seed))
    _show(found, text.speed_table(found, style), as_json=as_json, runs=runs, seed=seed)


@methodology.command("streaks")
@JSON
@_FORMAT
@_RUNS
@_SEED
def methodology_streaks(as_json: bool, style: str, runs: int, seed: int) -> None:
    """Measure how often streaks are warned of, by the number of blocks.

    Simulates one compared kernel, with independent boots, and with streaks of four slow boots.
    Needs neither a lab nor QEMU.
    """
    from labctl.methodology import text
    from labctl.methodology.warned import warnings

    found = list(warnings(runs=runs, seed=seed))
    _show(found, text.warned_table(found, style), as_json=as_json, runs=runs, seed=seed)


@methodology.command("load")
@JSON
@_FORMAT
@_RUNS
@_SEED
def methodology_load(as_json: bool, style: str, runs: int, seed: int) -> None:
    """Compare leaving disturbed blocks out with an adjustment for the load.

    The adjustment uses the CPU time of other processes during a repetition as a covariate.
    labctl does not use it. Needs neither a lab nor QEMU.
    """
    from labctl.methodology import text
    from labctl.methodology.load import adjustments

    found = list(adjustments(runs=runs, seed=seed))
    _show(found, text.load_table(found, style), as_json=as_json, runs=runs, seed=seed)


def _show(found: Sequence[Any], table: str, *, as_json: bool, runs: int, seed: int) -> None:
    if as_json:
        kinds = [one.document() for one in found]
        print_json({"schema": 1, "runs": runs, "seed": seed, "kinds": kinds})
    else:
        click.echo(table)
        click.echo(f"\n{runs} runs each, seed {seed}, labctl {__version__}")


def _write_plots(folder: Path, plots: Mapping[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in plots.items():
            (folder / name).write_text(image)
    except OSError as error:
        raise HostError(f"cannot write plots: {error.strerror}", where=str(folder)) from error


@methodology.command("noise")
@LAB
@JSON
@click.argument("run_id", metavar="[RUN]", default="latest")
def methodology_noise(lab_path: Path | None, as_json: bool, run_id: str) -> None:
    """Show the noise of RUN (default: latest) and where it comes from.

    Reports the spread within boots, between boots and by drift of the host, the offset
    of a boot's first repetition, and the share of outliers. Does not need QEMU.
    `labctl methodology simulate --noise RUN` tests the statistics with this noise.
    """
    from labctl.methodology import text

    found = _noises(lab_path, run_id)
    if as_json:
        print_json({"schema": 1, "experiments": [asdict(one) for one in found]})
    else:
        click.echo(text.noise_table(found))


def _noises(lab_path: Path | None, run_id: str) -> list[ExperimentNoise]:
    from labctl.methodology.noise import noises_of
    from labctl.runs.folder import resolve

    run = resolve(load_lab(lab_path, Use.READS).state_folder.runs, run_id)
    return noises_of(run.read(), run.store.samples())


@methodology.command("run-noise")
@LAB
@JSON
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
def methodology_run_noise(lab_path: Path | None, as_json: bool, run_ids: Sequence[str]) -> None:
    """Show how much the ratios of several RUNs of the same kernels differ.

    A run's interval contains the noise of its own blocks. Other runs of the same kernels
    differ by more: this reports the standard deviation between runs beyond that of the blocks,
    with a 95 % confidence interval. `labctl compare --run-noise` takes it. Does not need QEMU.
    """
    from labctl.methodology import text
    from labctl.reports.report import document_of
    from labctl.stats.run_spread import spreads

    folder = load_lab(lab_path, Use.READS).state_folder.runs
    found = spreads([document_of(folder, run_id) for run_id in run_ids])
    if as_json:
        print_json({"schema": 1, "cells": [asdict(one) for one in found]})
    else:
        click.echo(text.run_noise_table(found))


@methodology.command("host-load")
@LAB
@JSON
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
def methodology_host_load(lab_path: Path | None, as_json: bool, run_ids: Sequence[str]) -> None:
    """Show how repetitions of RUNs depend on the load by other processes.

    Repetitions are compared with the median of their boot, by the share of the CPU time that
    other processes used meanwhile: the mean and the median difference, and the standard
    deviation, by quantiles. From the share on at which these grow, a repetition is disturbed.
    Does not need QEMU.
    """
    from labctl.methodology import text
    from labctl.methodology.host_load import bins
    from labctl.runs.folder import resolve

    folder = load_lab(lab_path, Use.READS).state_folder.runs
    stores = [resolve(folder, run_id).store for run_id in run_ids]
    found = bins(sample for store in stores for sample in store.samples())
    if as_json:
        print_json({"schema": 1, "bins": [asdict(one) for one in found]})
    else:
        click.echo(text.load_bins_table(found))


COMMANDS = (methodology,)
