"""The command of the night."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl import screen
from labctl.cli.root import JSON, LAB, chosen, format_option, lab_to_work, load_lab, print_json
from labctl.errors import UserError

if TYPE_CHECKING:
    from labctl.lab_models import Lab


def _seconds(_: click.Context, param: click.Parameter, value: str) -> float:
    """Return a duration as lab.yaml has it; `60m` is 60 minutes too."""
    from labctl import units

    try:
        seconds = units.duration(re.sub(r"(?<=\d)m$", "min", value))
    except units.UnitError as error:
        raise click.BadParameter(f"{error}; write it like 60min or 2h", param=param) from None
    if seconds <= 0:
        raise click.BadParameter("must be above 0", param=param)
    return seconds


@click.command()
@LAB
@JSON
@format_option("markdown", "junit", "html", about="terminal is fit for a mail.")
@click.option(
    "--budget",
    callback=_seconds,
    metavar="DURATION",
    default="60min",
    show_default=True,
    help="How long it may take, builds and all.",
)
@click.option(
    "--history",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the nights [default: nightly in the lab's state folder].",
)
@click.option("--verify", "seconds", type=click.IntRange(min=1), metavar="SECONDS",
              help="Before measuring, give each check of --check so many seconds.")  # fmt: skip
@click.option("--check", "patterns", multiple=True, default=("integrity/*",), show_default=True,
              metavar="PATTERN", help="Which checks --verify makes (again for more).")  # fmt: skip
@click.option("--replay", is_flag=True,
              help="Measure nothing: judge the stored nights again, and report.")  # fmt: skip
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Also write the page, JUnit, mail, Markdown and JSON as files.")  # fmt: skip
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
    experiments: Sequence[str],
) -> None:
    """Measure EXPERIMENTS (all, if none is named) for one night, and find regressions.

    Two thirds of the budget go into the experiments: first all reach their minimum of
    blocks, then the one with the widest interval gets the next. Each night is
    appended to the history. A ratio that stands out is measured again at once; if it
    stays, tonight's kernel is measured against that of the last night before, and only
    a change that two such runs confirm is reported. Another host, another base, a
    missing night begin a new segment.

    \b
    Exit status 1 if this night found a regression or a failure; with --replay, if any
    night of the history did. docs/howto/nightly.md has a timer, a crontab line, and how
    often it is wrong.
    """  # noqa: D301 - click wants the character itself
    from labctl.results import nights
    from labctl.results.findings import document, problems

    # A stored history can be judged where there is no lab.
    read = load_lab if replay else lab_to_work
    lab = None if replay and history else read(lab_path)
    state = lab.state if lab else None
    folder = history or Path(state or "", "nightly")
    if replay or lab is None:
        if experiments or seconds:
            raise click.UsageError("--replay measures nothing: no EXPERIMENT, no --verify")
        if not nights.path_of(folder).is_file():
            raise UserError(
                "there is no history", where=str(folder), hint="labctl nightly makes one"
            )
    else:
        _measure(lab, chosen(lab, experiments), budget, folder, seconds, patterns)
    content = document(nights.read(folder))
    if output is not None:
        _write(content, output, state and state / "runs")
    if as_json:
        print_json(content)
    else:
        click.echo(_rendered(content, style), nl=False)
    if problems(content, of_last_night=not replay):
        sys.exit(1)


def _measure(
    lab: Lab,
    names: Sequence[str],
    budget: float,
    folder: Path,
    seconds: int | None,
    patterns: Sequence[str],
) -> None:
    from labctl.checks import verify
    from labctl.checks.briefly import briefly
    from labctl.experiments import kept_images
    from labctl.experiments.nightly import Nightly, opener
    from labctl.experiments.session import Events

    with screen.Measuring() as shown, screen.Checking() as checking:

        def check(lab: Lab) -> Mapping[str, Any]:
            if seconds is None:
                return {}
            used = dict.fromkeys(k for name in names for k in lab.experiments[name].kernels)
            return briefly(
                lab,
                [kernel for kernel in used if lab.kernels[kernel].series],
                seconds=seconds,
                only=patterns,
                events=verify.Events(building=checking.building, checking=checking.checking),
            )

        events = Events(
            building=shown.building,
            waiting=shown.waiting,
            started=shown.started,
            measuring=shown.measuring,
        )
        Nightly(
            lab=lab,
            experiments=names,
            budget_seconds=budget,
            history=folder,
            open_run=opener(events),
            image_of=lambda image: kept_images.find(folder, image),
            keep=lambda record: kept_images.keep(lab, folder, record),
            check=check,
            tell=shown.say,
        ).run()


def _rendered(content: Mapping[str, Any], style: str) -> str:
    from labctl.reports import nights, trend

    return trend.render(content) if style == "html" else nights.FORMATS[style](content)


def _write(content: Mapping[str, Any], output: Path, runs: Path | None) -> None:
    from labctl.reports import files

    texts = {
        "index.html": _rendered(content, "html"),
        "junit.xml": _rendered(content, "junit"),
        "mail.txt": _rendered(content, "terminal"),
        "summary.md": _rendered(content, "markdown"),
    }
    for path in files.write(output, texts, content, runs):
        click.echo(f"wrote {path}", err=True)


COMMANDS = (nightly,)
