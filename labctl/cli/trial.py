"""`labctl try`: from a git tree to a verdict, without lab.yaml."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labctl import progress
from labctl.cli.root import JSON, lab_to_work
from labctl.cli.runs import show_report
from labctl.errors import UserError
from labctl.units import quote

if TYPE_CHECKING:
    from labctl.guests.prepare import Prepared
    from labctl.trial.lab_file import Trial

_ARGUMENTS, _COMMAND = "labctl.try.arguments", "labctl.try.command"


class _WithCommand(click.Command):
    """Keeps what follows `--` apart: it is the command of the guest."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours, dashes, command = _split(args)
        if dashes and not command:
            raise click.UsageError("there is no command after --", ctx)
        ctx.meta[_ARGUMENTS], ctx.meta[_COMMAND] = tuple(args), tuple(command)
        return super().parse_args(ctx, ours)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


def _split(args: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in args:
        return args, False, []
    at = args.index("--")
    return args[:at], True, args[at + 1 :]


class _SameImage(Exception):
    """Both kernels have the same image."""


@click.command("try", cls=_WithCommand)
@JSON
@click.option("--tree", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              default=".",
              help="Kernel tree [default: the one around the current folder].")  # fmt: skip
@click.option(
    "--workload",
    "operation",
    metavar="NAME",
    default="munmap",
    show_default=True,
    help="Ready workload; `labctl workloads` lists them.",
)
@click.option("--metric", help="Metric in COMMAND's output [default: wall_time, its run time].")
@click.option("--better", type=click.Choice(["lower", "higher"]),
              help="Better values of --metric.")  # fmt: skip
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Kernel configuration [default: labctl's small one].")  # fmt: skip
@click.option("--guest", metavar="NxC,SIZE",
              help="Guest with N nodes of C CPUs and SIZE of memory in all, such as 2x2,4GiB "
              "[default: by this host].")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=10,
              show_default=True, help="Time limit of measuring, excluding builds.")  # fmt: skip
@click.option("--seed", type=int, help="Seed of the order of cells [default: random].")
@click.option("--write", "written", type=click.Path(dir_okay=False, path_type=Path),
              help="Also write an equivalent lab.yaml.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the plan and run nothing.")
@click.argument("revisions", metavar="[BASE..TOPIC]", default="HEAD")
@click.pass_context
def try_(
    ctx: click.Context,
    as_json: bool,
    tree: Path,
    operation: str,
    metric: str | None,
    better: str | None,
    config: Path | None,
    guest: str | None,
    minutes: float,
    seed: int | None,
    written: Path | None,
    dry_run: bool,
    revisions: str,
) -> None:
    """Compare two revisions of a kernel tree, without lab.yaml.

    Builds BASE and TOPIC, boots both as NUMA guests, measures them alternately and
    prints the verdict. With TOPIC alone (default: HEAD), the base is the merge base with
    upstream. The tree is only read; uncommitted changes do not count. Builds and results
    are kept in ~/.local/state/labctl.

    \b
    Examples:
      labctl try                          HEAD and its merge base with upstream
      labctl try v6.12..topic             the commits of topic since v6.12
      labctl try --workload hackbench     a ready workload
      labctl try -- ./mybench --size 1G   the run time of your program

    Exit status 1 if TOPIC is slower, a sample failed, or the A/A control differs.
    """  # noqa: D301 - click wants the character itself
    from labctl.lab.problems import suggestion
    from labctl.lab.shelf import SHELF
    from labctl.trial import place, shape
    from labctl.trial.host import of_host
    from labctl.trial.lab_file import EXPERIMENT, Trial
    from labctl.trial.revisions import find

    command: tuple[str, ...] = ctx.meta[_COMMAND]
    if operation not in SHELF:
        hint = suggestion(operation, tuple(SHELF), "names")
        what = f"--workload: unknown ready workload {quote(operation)}"
        raise UserError(what, hint=hint)
    if (metric or better) and not command:
        raise click.UsageError("--metric and --better require -- COMMAND", ctx)
    if written is not None and written.exists():
        raise UserError("file already exists", where=str(written), hint="choose another file name")
    trial = Trial(
        revisions=find(tree, revisions),
        shape=shape.parse(guest) if guest else of_host(),
        operation=operation,
        command=_absolute(command),
        metric=metric or "",
        better=better or "",
        config=config.absolute() if config else None,
    )
    command_line = shlex.join(["labctl", "try", *ctx.meta[_ARGUMENTS]])
    text = trial.text(place.state_folder(), command_line)
    path = place.lab_path(trial.revisions.repository)
    click.echo(_intention(trial, minutes, path), err=True)
    if dry_run:
        return
    place.write(path, text)
    lab = lab_to_work(path)
    if written is not None:
        place.write(written, text)

    def check(prepared: Prepared) -> None:
        hashes = {prepared.images[name].bzimage_sha256 for name in trial.kernels()}
        if len(hashes) == 1:
            raise _SameImage

    from labctl.experiments import session

    try:
        with progress.Measuring() as shown:
            folder = session.run(
                lab,
                [EXPERIMENT],
                seed=seed,
                events=shown.events(),
                budget_seconds=minutes * 60,
                check=check,
            )
    except _SameImage:
        click.echo(
            f"nothing to measure: {trial.revisions.topic.name} changes nothing that was built "
            f"({trial.revisions.changes()}); --config builds another configuration"
        )
        return
    show_report(lab, folder.id, as_json=as_json)


def _absolute(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command with an absolute program, if it names a file by a path."""
    if command and "/" in command[0]:
        return (str(Path(command[0]).absolute()), *command[1:])
    return tuple(command)


def _intention(trial: Trial, minutes: float, path: Path) -> str:
    from labctl.lab.shelf import SHELF
    from labctl.reports import words

    revisions = trial.revisions
    base = f"{revisions.base}" + (f", {revisions.found_by}" if revisions.found_by else "")
    what = shlex.join(trial.command) or f"{trial.operation}: {SHELF[trial.operation].good_for}"
    return "\n".join(
        [
            f"base:     {base}",
            f"topic:    {revisions.topic}",
            f"changes:  {revisions.changes()}",
            f"guest:    {trial.shape}",
            f"workload: {what}",
            f"time:     at most {words.duration(minutes * 60)} of measuring, or 6 blocks; "
            "each kernel that is not built yet takes minutes more",
            f"lab:      {path}",
        ]
    )


COMMANDS = (try_,)
