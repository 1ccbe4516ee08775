"""Commands that check: a series, its correctness, the method itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labctl import __version__, screen
from labctl.cli.root import (
    JSON,
    LAB,
    Group,
    format_option,
    kernels_of,
    lab_to_work,
    load_lab,
    named,
    print_json,
)
from labctl.lab_use import Use

if TYPE_CHECKING:
    from labctl.results.stored import ExperimentNoise


@click.group("methodology", cls=Group)
def methodology() -> None:
    """Look into the method itself."""


@methodology.command("simulate")
@JSON
@LAB
@format_option("markdown", about="markdown is that of docs/explanation/methodology.md.")
@click.option(
    "--runs",
    type=click.IntRange(min=2),
    default=2000,
    show_default=True,
    help="Simulated runs of each kind; 2000 take a minute or two.",
)
@click.option("--seed", type=click.IntRange(min=0), default=20170315, show_default=True)
@click.option(
    "--cells",
    type=click.IntRange(1, 100),
    default=12,
    show_default=True,
    help="How many cells are compared with the baseline.",
)
@click.option(
    "--noise",
    "noise_of",
    metavar="RUN",
    help="Scatter as this run's experiments do (`labctl methodology noise`), not as built in.",
)
@click.option(
    "--plots",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write plots there too, as SVG.",
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
    """Count how often the statistics are wrong, where the truth is known.

    Runs of 12 cells are simulated, with noise as in real guests and with worse, and
    judged as real ones are. Of intervals of 95 %, 93 to 97 % must hold the truth, and
    in at most 5 % of the runs in which nothing changed may any cell be said to
    differ. Exit status 1 if it is not so. Needs no QEMU, and a lab only for --noise.
    """
    from labctl.lab_statistics import Statistics
    from labctl.reports import promises
    from labctl.results.noise import NOISES
    from labctl.results.simulation import DESIGNS, simulate
    from labctl.results.verdict import Rule

    usual = Statistics()
    noises = [one.noise for one in _noises(lab_path, noise_of)] if noise_of else NOISES
    with screen.Simulating() as progress:
        found = list(
            simulate(
                runs=runs,
                seed=seed,
                rule=Rule.of(usual.confidence, usual.minimum_effect),
                noises=noises,
                designs=[replace(design, cells=cells) for design in DESIGNS],
                tell=lambda kind, done: progress(kind, done, runs),
            )
        )
    if plots:
        promises.write_plots(found, plots)
    if as_json:
        kinds = [one.document() for one in found]
        print_json({"schema": 1, "runs": runs, "seed": seed, "cells": cells, "kinds": kinds})
    else:
        click.echo(promises.as_table(found, style))
        plural = "" if cells == 1 else "s"
        click.echo(f"\n{runs} runs each of {cells} cell{plural}, seed {seed}, labctl {__version__}")
    if not all(one.kept for one in found):
        sys.exit(1)


@methodology.command("nights")
@JSON
@format_option("markdown", about="markdown is that of docs/explanation/nightly.md.")
@click.option(
    "--histories",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Simulated histories of each kind; 200 take a minute or two.",
)
@click.option("--seed", type=click.IntRange(min=0), default=20170315, show_default=True)
def methodology_nights(as_json: bool, style: str, histories: int, seed: int) -> None:
    """Count how often `labctl nightly` is wrong, where the truth is known.

    Histories are simulated: a night's ratio spreads by 3 %, and 3 nights in 100 are off
    by 50 %. In at most 5 % of 90 quiet nights may a change be reported, and a regression
    of 10 % must be within 6 nights in at least 90 %. Exit status 1 if it is not so.
    Needs no lab and no QEMU.
    """
    from labctl.lab_statistics import Statistics
    from labctl.reports import promises
    from labctl.results.night_simulation import simulate
    from labctl.results.verdict import Rule

    usual = Statistics()
    rule = Rule.of(usual.confidence, usual.minimum_effect)
    with screen.Simulating() as progress:
        found = list(
            simulate(
                histories=histories,
                seed=seed,
                rule=rule,
                tell=lambda kind, done: progress(kind, done, histories),
            )
        )
    if as_json:
        print_json(
            {"schema": 1, "histories": histories, "seed": seed,
             "scenarios": [one.document() for one in found]}
        )  # fmt: skip
    else:
        click.echo(promises.nights_as_table(found, style))
        click.echo(f"\n{histories} histories each, seed {seed}, labctl {__version__}")
    if not all(one.kept for one in found):
        sys.exit(1)


@methodology.command("noise")
@LAB
@JSON
@click.argument("run_id", metavar="[RUN]", default="latest")
def methodology_noise(lab_path: Path | None, as_json: bool, run_id: str) -> None:
    """Say how the times of a RUN (the latest, if none is named) scatter, and where.

    Within boots, between them, by a drift of the host; how far a boot's first
    repetition is from its others; how many repetitions are outliers. Needs no QEMU.
    `labctl methodology simulate --noise RUN` tries the statistics on such noise.
    """
    from labctl.reports import promises

    found = _noises(lab_path, run_id)
    if as_json:
        print_json({"schema": 1, "experiments": [asdict(one) for one in found]})
    else:
        click.echo(promises.noise_table(found))


def _noises(lab_path: Path | None, run_id: str) -> list[ExperimentNoise]:
    from labctl.results import runs
    from labctl.results.stored import noises_of

    return noises_of(runs.resolve(load_lab(lab_path, Use.READS).state / "runs", run_id))


@click.group("series", cls=Group)
def series_() -> None:
    """Look after patch series."""


@series_.command("check")
@LAB
@JSON
@click.argument("kernels", nargs=-1)
def series_check(lab_path: Path | None, as_json: bool, kernels: Sequence[str]) -> None:
    """Try each step of the series of KERNELS (all, if none is named) as a reviewer will.

    It must apply, by patch and by `git am`, build and boot; W=1 and sparse must
    find nothing new in the files that the series touches, and the source's own
    checkpatch --strict nothing in the patch. Exit status 1 if anything failed.
    """
    from labctl.checks import series

    lab = lab_to_work(lab_path)
    names = named("series", kernels, (k for k, one in lab.kernels.items() if one.series))
    with screen.Building() as building:
        checked = {name: series.check(lab, name, building) for name in names}
    if as_json:
        print_json({"schema": 1, "series": {n: [s.document() for s in c]
                                             for n, c in checked.items()}})  # fmt: skip
    else:
        click.echo("\n\n".join(screen.series_steps(n, c) for n, c in checked.items()))
    if not all(step.passed for steps in checked.values() for step in steps):
        sys.exit(1)


@click.command()
@LAB
@JSON
@format_option("ktap", "junit", about="ktap and junit are for CI.")
@click.option(
    "--seconds",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="How long each program of the guest works.",
)
@click.option(
    "--check",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Only checks of such names, as in 'integrity/*' (again for more).",
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME",
    help="Only kernels of this variant of `verify:` (again for more).",
)
@click.option("-x", "--stop-at-first", is_flag=True, help="End a kernel's checks with a failure.")
@click.option("--without-base", is_flag=True, help="Do not check the kernels' bases beside them.")
@click.argument("kernels", nargs=-1)
def verify(
    lab_path: Path | None,
    as_json: bool,
    style: str,
    seconds: int,
    patterns: Sequence[str],
    variants: Sequence[str],
    stop_at_first: bool,
    without_base: bool,
    kernels: Sequence[str],
) -> None:
    """Say whether KERNELS (all, if none is named) are as correct as their bases.

    Builds debug kernels (the fragments of `verify:` in lab.yaml), turns the tunables
    as it says there, and runs programs that find wrong memory: the lab's own
    integrity scenarios, stress-ng, the kernel tree's selftests of mm. A splat, a
    foreign byte, a hung task, memory that does not come back within 1 %, and a
    series that was never entered are failures. Exit status 1 if there is one; a
    selftest that fails on the base as well is none.
    """
    from labctl.checks.verify import Events, Options, verify
    from labctl.reports.verified import FORMATS

    lab = lab_to_work(lab_path)
    known = [variant.name for variant in lab.verify.variants]
    options = Options(
        only=tuple(patterns) or ("*",),
        stop_at_first=stop_at_first,
        variants=tuple(named("variant", variants, known)),
    )
    with screen.Checking() as checking:
        verified = verify(
            lab,
            kernels_of(lab, kernels),
            seconds=seconds,
            options=options,
            with_base=not without_base,
            events=Events(building=checking.building, checking=checking.checking),
        )
    document = verified.document()
    if as_json:
        print_json(document)
    else:
        click.echo(FORMATS[style](document), nl=False)
    if not verified.passed:
        sys.exit(1)


COMMANDS = (series_, verify, methodology)
