"""`labctl bisect`: find the first bad step of a series."""

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
    WHOLE_SECONDS,
    at_once_of,
    engine_of,
    find_lab,
    lab_to_work,
    named,
    print_json,
    setting_of,
)

if TYPE_CHECKING:
    from labctl.bisect.metric import Answer
    from labctl.lab.models import Lab


_AGAIN = "run `labctl bisect` again"


@click.command()
@LAB
@JSON
@click.option(
    "--good",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Last step known to be good; 0 is the kernel without its series.",
)
@click.option(
    "--bad",
    type=click.IntRange(min=1),
    help="Step known to be bad [default: the whole series].",
)
@click.option(
    "--risk",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Maximum probability of a wrong answer.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Setting that selects the cell of the experiment's matrix (repeatable).",
)
@click.option(
    "--blocks",
    type=click.IntRange(min=4),
    default=36,
    show_default=True,
    help="Maximum blocks per decision.",
)
@click.option(
    "--check",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Search with checks of `labctl verify` matching PATTERN, not with an EXPERIMENT "
    "(repeatable).",
)
@click.option(
    "--kernel",
    "like",
    metavar="NAME",
    help="Kernel whose configuration and command line are used for the commits of a range "
    "[default: the first kernel from git without a series].",
)
@click.option(
    "--seconds",
    type=WHOLE_SECONDS,
    default="60s",
    show_default=True,
    help="Time for which each program of --check runs.",
)
@SCHEDULER
@click.argument("kernel")
@click.argument("experiment", required=False)
def bisect(
    lab_path: Path | None,
    as_json: bool,
    good: int,
    bad: int | None,
    risk: float,
    settings: Sequence[str],
    blocks: int,
    patterns: Sequence[str],
    like: str | None,
    seconds: int,
    scheduler: str | None,
    kernel: str,
    experiment: str | None,
) -> None:
    """Find the step that changed a metric or broke a check.

    Searches KERNEL's series for the first step that changed EXPERIMENT's metric or, with
    --check, broke a check of `labctl verify`. In place of KERNEL, git:GOOD..BAD or
    git:PATH@GOOD..BAD searches the commits of a range, from its merge base and along first
    parents.

    First decides whether the good and the bad end differ. Each further step is then
    measured together with both ends, in blocks of one run, until it is clear whether it
    is closer to the good or to the bad end. --risk limits the probability that any
    decision is wrong. Steps that do not build or run are skipped.

    With `--scheduler`, workers on other hosts measure, as many blocks at the same time as there
    are hosts, or run the checks. Kernels are built here.

    \b
    Examples:
      labctl bisect parallel-free exit
      labctl bisect parallel-free --check 'integrity/*'
      labctl bisect git:v6.12..topic exit

    Exit status 1 if the step was not found.
    """  # noqa: D301 - click wants the character itself
    from labctl.bisect import text
    from labctl.bisect.steps import RANGE

    lab = None
    if lab_path is None and kernel.startswith(RANGE) and find_lab() is None:
        lab, kernel, experiment = _of_try(kernel.removeprefix(RANGE), experiment, patterns)
    if bool(patterns) == bool(experiment):
        raise click.UsageError("expected either an EXPERIMENT or --check")
    lab = lab or lab_to_work(lab_path, is_local=False)
    if experiment:
        named("experiment", [experiment], lab.experiments)
    what = experiment or ", ".join(patterns)
    answer = _begin(lab, kernel, like, experiment, good=good, bad=bad, risk=risk, what=what)
    if experiment:
        _of_metric(lab, answer, experiment, settings, blocks, scheduler)
    else:
        _of_check(lab, answer, patterns, seconds, scheduler)
    content = answer.document()
    if as_json:
        print_json(content)
    else:
        click.echo(text.terminal(content), nl=False)
    if answer.step is None:
        sys.exit(1)


def _of_try(
    text: str, experiment: str | None, patterns: Sequence[str]
) -> tuple[Lab, str, str | None]:
    """Return the lab of `labctl try` for the current repository, the range and the experiment.

    It is the lab of the last `try`, or one with the defaults.
    """
    from labctl.trial import place
    from labctl.trial.host import of_host
    from labctl.trial.lab_file import EXPERIMENT, Trial
    from labctl.trial.revisions import find

    found = find(Path.cwd(), text)
    path = place.lab_path(found.repository)
    if not path.is_file():
        trial = Trial(revisions=found, shape=of_host())
        place.write(path, trial.text(place.state_folder(), f"labctl bisect git:{text}"))
    click.echo(f"lab: {path}", err=True)
    range_text = f"git:{found.repository}@{found.base.commit}..{found.topic.commit}"
    return (
        lab_to_work(path, is_local=False),
        range_text,
        experiment or (None if patterns else EXPERIMENT),
    )


def _begin(
    lab: Lab,
    kernel: str,
    like: str | None,
    experiment: str | None,
    *,
    good: int,
    bad: int | None,
    risk: float,
    what: str,
) -> Answer:
    from labctl.bisect import steps
    from labctl.bisect.metric import begin

    found: steps.Steps
    if kernel.startswith(steps.RANGE):
        if like is not None:
            named("kernel", [like], lab.kernels)
        else:
            tested = lab.experiments[experiment].kernels if experiment else lab.kernels
            like = steps.kernel_like(lab, tested)
        found = steps.commits_of(lab, kernel, like)
    else:
        if like is not None:
            raise click.UsageError("--kernel needs a range git:GOOD..BAD")
        named("kernel", [kernel], lab.kernels)
        found = steps.patches_of(lab, kernel)
    return begin(found, good=good, bad=bad, risk=risk, what=what)


def _of_metric(
    lab: Lab,
    answer: Answer,
    experiment: str,
    settings: Sequence[str],
    blocks: int,
    scheduler: str | None,
) -> None:
    from labctl.bisect.metric import Bisect
    from labctl.nightly.night import opener

    with (
        progress.Measuring() as shown,
        engine_of(lab, scheduler, shown.say, _AGAIN) as engine,
    ):
        Bisect(
            lab=lab,
            experiment=experiment,
            setting=dict(map(setting_of, settings)),
            answer=answer,
            open_run=opener(shown.events(), engine),
            blocks_max=blocks,
            report=shown.say,
            at_once=at_once_of(engine),
        ).run()


def _of_check(
    lab: Lab, answer: Answer, patterns: Sequence[str], seconds: int, scheduler: str | None
) -> None:
    from labctl.bisect.check import BisectCheck, by_verify

    with (
        progress.Checking() as shown,
        engine_of(lab, scheduler, shown.say, _AGAIN) as engine,
    ):
        failed = by_verify(lab, patterns, seconds, shown.events(), engine)
        BisectCheck(lab=lab, answer=answer, failed=failed, report=shown.say).run()


COMMANDS = (bisect,)
