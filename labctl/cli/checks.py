"""Commands that check a series and its correctness."""

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
    Group,
    engine_of,
    format_option,
    kernels_of,
    lab_to_work,
    named,
    print_json,
)

if TYPE_CHECKING:
    pass


@click.group("series", cls=Group)
def series_() -> None:
    """Check patch series."""


@series_.command("check")
@LAB
@JSON
@click.argument("kernels", nargs=-1)
def series_check(lab_path: Path | None, as_json: bool, kernels: Sequence[str]) -> None:
    """Check each patch of the series of KERNELS (default: all).

    Each patch must apply with patch and with `git am`, and the result must build and
    boot. W=1 and sparse must report nothing new in the files that the series changes,
    and `checkpatch --strict` of the kernel source must report nothing. Exit status 1 if
    a check failed.
    """
    from labctl.review.steps import check, document

    lab = lab_to_work(lab_path)
    names = named("series", kernels, (k for k, one in lab.kernels.items() if one.series))
    with progress.Building() as building:
        checked = {name: check(lab, name, building) for name in names}
    if as_json:
        print_json(document(checked))
    else:
        click.echo("\n\n".join(progress.series_steps(n, c) for n, c in checked.items()))
    if not all(step.passed for steps in checked.values() for step in steps):
        sys.exit(1)


@click.command()
@LAB
@JSON
@format_option("ktap", "junit", about="ktap and junit are for CI.")
@click.option(
    "--seconds",
    type=WHOLE_SECONDS,
    default="60s",
    show_default=True,
    help="Time for which each program runs in the guest.",
)
@click.option(
    "--trials",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="At least N trials in each scenario that counts OOM kills in trials.",
)
@click.option(
    "--check",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Only checks matching PATTERN, for example 'integrity/*' (repeatable).",
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME",
    help="Only kernels of this variant of `verify:` (repeatable).",
)
@click.option("--quick", is_flag=True, help="Only the first setting and the first defaults.")
@click.option("-x", "--stop-at-first", is_flag=True, help="Stop at a kernel's first failure.")
@click.option("--without-base", is_flag=True, help="Do not check the base kernels.")
@SCHEDULER
@click.argument("kernels", nargs=-1)
def verify(
    lab_path: Path | None,
    as_json: bool,
    style: str,
    seconds: int,
    trials: int | None,
    patterns: Sequence[str],
    variants: Sequence[str],
    quick: bool,
    stop_at_first: bool,
    without_base: bool,
    scheduler: str | None,
    kernels: Sequence[str],
) -> None:
    """Check the correctness of KERNELS (default: all).

    Builds debug kernels with the fragments of `verify:` in lab.yaml and runs programs
    that detect memory corruption, first with the tunables listed there, then at the
    defaults: the lab's integrity scenarios, stress-ng and the mm selftests of the
    kernel tree and of the series. A splat, a foreign byte, a hung task, an unexpected
    OOM kill, memory that is not returned to within 1 %, and a series that does not hand
    over are failures. Exit status 1 on failure; selftests that also fail on the base,
    and as many OOM kills as on the base, are ignored.

    With `--scheduler`, workers on other hosts run the guests, each one the checks of a kernel
    at one setting.
    """
    from labctl.verify.run import Options, verify
    from labctl.verify.text import FORMATS

    lab = lab_to_work(lab_path, is_local=False)
    known = [variant.name for variant in lab.verify.variants]
    options = Options(
        only=tuple(patterns) or ("*",),
        stop_at_first=stop_at_first,
        variants=tuple(named("variant", variants, known)),
        quick=quick,
        trials=trials,
    )
    again = "run `labctl verify` again"
    with (
        progress.Checking() as checking,
        engine_of(lab, scheduler, checking.say, again) as engine,
    ):
        verified = verify(
            lab,
            kernels_of(lab, kernels),
            seconds=seconds,
            options=options,
            with_base=not without_base,
            events=checking.events(),
            engine=engine,
        )
    document = verified.document()
    if as_json:
        print_json(document)
    else:
        click.echo(FORMATS[style](document), nl=False)
    if not verified.passed:
        sys.exit(1)


COMMANDS = (series_, verify)
