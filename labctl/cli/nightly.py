"""`labctl nightly`: measure every night and find regressions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labctl import progress
from labctl.cli.root import (
    DURATION,
    JSON,
    LAB,
    SCHEDULER,
    WHOLE_SECONDS,
    at_once_of,
    chosen,
    engine_of,
    format_option,
    lab_to_work,
    load_lab,
    print_json,
)
from labctl.cli.site import publish
from labctl.errors import UserError

if TYPE_CHECKING:
    from labctl.lab.models import Lab
    from labctl.nightly.records import KernelChecks
    from labctl.nightly.types import Nightly as NightlyReport


@click.command()
@LAB
@JSON
@format_option("markdown", "junit", "html", about="terminal suits a mail.")
@click.option(
    "--budget",
    type=DURATION,
    default="60min",
    show_default=True,
    help="Time limit, including builds.",
)
@click.option(
    "--history",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder of the nightly records [default: nightly in the lab's state folder].",
)
@click.option("--verify", "seconds", type=WHOLE_SECONDS,
              help="Before measuring, run each check for DURATION.")  # fmt: skip
@click.option("--check", "patterns", multiple=True, default=("integrity/*",), show_default=True,
              metavar="PATTERN", help="Checks that --verify runs (repeatable).")  # fmt: skip
@click.option("--replay", is_flag=True,
              help="Analyse the stored nightly runs again; measure nothing.")  # fmt: skip
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Also write HTML, JUnit, mail, Markdown and JSON files to FOLDER.")  # fmt: skip
@click.option("--site", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Also publish all runs and nightly runs, as `labctl site` does.")  # fmt: skip
@SCHEDULER
@click.argument("experiments", nargs=-1)
def nightly(
    lab_path: Path | None,
    as_json: bool,
    style: str,
    budget: float,
    history: Path | None,
    seconds: int | None,
    patterns: Sequence[str],
    replay: bool,
    output: Path | None,
    site: Path | None,
    scheduler: str | None,
    experiments: Sequence[str],
) -> None:
    """Measure EXPERIMENTS (default: all), find regressions.

    Two thirds of the time budget are for the experiments: first all reach their minimum
    number of blocks, then the experiment with the widest interval gets the next block.
    Experiments with `scale: difference` are left out. Each nightly run is appended to the
    history. An outlying ratio is measured again
    at once. If it persists, the new kernel is measured against the kernel of the
    previous nightly run, and only a change that two such runs confirm is reported.
    A different host, a different base or a missing nightly run starts a new segment.

    With `--scheduler`, workers on other hosts measure, as many blocks at the same time as there
    are hosts, and run the checks.

    Exit status 1 if this nightly run found a regression or a failure; with --replay, if
    any nightly run of the history did. See docs/howto/nightly.md for a systemd timer,
    a crontab line and the error rates.
    """
    from labctl.nightly import history as night_history
    from labctl.nightly.findings import document, problems
    from labctl.site.folder import check as check_site

    if site is not None:
        check_site(site)  # before hours of measuring
    # --replay with --history works without a lab; a site has the lab's runs.
    read = load_lab if replay else partial(lab_to_work, is_local=False)
    lab = None if replay and history and not site else read(lab_path)
    state = lab.state_folder if lab else None
    folder = history or (state.nightly if state else Path("nightly"))
    if replay or lab is None:
        if experiments or seconds or scheduler:
            raise click.UsageError("--replay conflicts with EXPERIMENTS, --verify and --scheduler")
        if not night_history.path_of(folder).is_file():
            raise UserError(
                "no history", where=str(folder), hint="run `labctl nightly` to create one"
            )
    else:
        names = chosen(lab, experiments or _of_ratios(lab))
        _measure(lab, names, budget, folder, seconds, patterns, scheduler)
    content = document(night_history.read(folder))
    if output is not None:
        _write(content, output, state.runs if state else None)
    if as_json:
        print_json(content)
    else:
        click.echo(_rendered(content, style), nl=False)
    if site is not None and lab is not None:
        publish(lab, site, folder)
    if problems(content, of_last_night=not replay):
        sys.exit(1)


def _of_ratios(lab: Lab) -> list[str]:
    """Return the experiments that compare ratios, and report that the others are left out."""
    others = [name for name in lab.experiments if lab.compared(name).scale == "difference"]
    if others:
        click.echo(f"left out, as they compare differences: {', '.join(others)}", err=True)
    return [name for name in lab.experiments if name not in others]


def _measure(
    lab: Lab,
    names: Sequence[str],
    budget: float,
    folder: Path,
    seconds: int | None,
    patterns: Sequence[str],
    scheduler: str | None,
) -> None:
    from labctl.nightly import images
    from labctl.nightly.checks import briefly
    from labctl.nightly.night import Nightly, opener

    again = "run `labctl nightly` again"
    with (
        progress.Measuring() as shown,
        progress.Checking() as checking,
        engine_of(lab, scheduler, shown.say, again) as engine,
    ):

        def check(lab: Lab) -> dict[str, KernelChecks]:
            if seconds is None:
                return {}
            used = dict.fromkeys(k for name in names for k in lab.experiments[name].kernels)
            return briefly(
                lab,
                [kernel for kernel in used if lab.kernels[kernel].series],
                seconds=seconds,
                only=patterns,
                events=checking.events(),
                engine=engine,
            )

        Nightly(
            lab=lab,
            experiments=names,
            budget_seconds=budget,
            history=folder,
            open_run=opener(shown.events(), engine),
            image_of=lambda image: images.find(folder, image),
            keep=lambda record: images.keep(lab, folder, record),
            check=check,
            report=shown.say,
            at_once=at_once_of(engine),
        ).run()


def _rendered(content: NightlyReport, style: str) -> str:
    from labctl.nightly import html, text

    return html.render(content) if style == "html" else text.FORMATS[style](content)


def _write(content: NightlyReport, output: Path, runs: Path | None) -> None:
    from labctl.nightly import files

    texts = {
        "index.html": _rendered(content, "html"),
        "junit.xml": _rendered(content, "junit"),
        "mail.txt": _rendered(content, "terminal"),
        "summary.md": _rendered(content, "markdown"),
    }
    for path in files.write(output, texts, content, runs):
        click.echo(f"wrote {path}", err=True)


COMMANDS = (nightly,)
