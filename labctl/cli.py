"""The commands: parse, call, print. Nothing below this module prints or exits."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from labctl import __version__, screen
from labctl.errors import LabError, UserError

if TYPE_CHECKING:
    from labctl.guests.fleet import Fleet
    from labctl.lab_models import Lab

# Modules that bring numpy, pydantic or fabric with them are imported by the
# command that needs them, so that `--help` and shell completion stay quick.

_INTERRUPTED = 130
_LAB = click.option(
    "--lab",
    "lab_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The lab's description [default: lab.yaml here or in a folder above].",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def _format(*others: str, about: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option of where a report goes: the terminal, or one of the others."""
    return click.option(
        "--format",
        "style",
        type=click.Choice(["terminal", *others]),
        default="terminal",
        show_default=True,
        help=f"Where the report goes; {about}",
    )


class _Group(click.Group):
    def list_commands(self, _: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done; 1 the lab found a problem (a regression, a crashed guest, a "
    "failed build); 2 the input is wrong; 3 the host cannot do it; 130 interrupted.",
)
@click.version_option(__version__)
def labctl() -> None:
    r"""Say with sound statistics what a kernel patch series changed.

    labctl builds stock and patched kernels, boots them as NUMA guests, turns
    every knob, measures in interleaved blocks and reports ratios with
    confidence intervals. All of it is described in lab.yaml.

    \b
    Begin with:
      labctl init            write a commented lab.yaml
      labctl plan smoke      what would be done, and how long it takes
      labctl run smoke       build, boot, measure, report
    """


@labctl.command()
@click.option("--force", is_flag=True, help="Replace a lab.yaml that is there.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
def init(folder: Path, force: bool) -> None:
    """Write a commented lab.yaml into FOLDER, with what it refers to."""
    from labctl import lab_template

    for path in lab_template.write(folder, force=force):
        click.echo(f"wrote {path}")


@labctl.command()
def schema() -> None:
    """Print the JSON Schema of lab.yaml, for editors that complete and check it."""
    from labctl import lab_template

    click.echo(json.dumps(lab_template.json_schema(), indent=2))


@labctl.command()
@_LAB
@_JSON
@click.option("--seed", type=int, default=0, show_default=True, help="Decides the order.")
@click.argument("experiments", nargs=-1)
def plan(lab_path: Path | None, as_json: bool, seed: int, experiments: Sequence[str]) -> None:
    """Show what `run` would do: guests, command lines, order, expected time. Runs nothing."""
    from labctl.experiments import preview

    lab = _load(lab_path)
    previews = [preview.preview(lab, name, seed) for name in _chosen(lab, experiments)]
    if as_json:
        _print_json({"schema": 1, "experiments": previews})
    else:
        click.echo("\n\n".join(map(screen.preview, previews)))


@labctl.command()
@_LAB
@_JSON
@click.argument("kernels", nargs=-1)
def build(lab_path: Path | None, as_json: bool, kernels: Sequence[str]) -> None:
    """Build KERNELS (all, if none is named). What is built already is not built again."""
    from labctl.guests.prepare import build_images

    lab = _load(lab_path)
    with screen.Building() as building:
        images = build_images(lab, _kernels(lab, kernels), building)
    rows = [
        {"kernel": name, "release": i.release, "image": i.hash, "series": i.series_hash,
         "bzimage": str(i.bzimage)}
        for name, i in images.items()
    ]  # fmt: skip
    if as_json:
        _print_json({"schema": 1, "images": rows})
    else:
        click.echo(screen.table(rows, shorten=("image", "series")))


@labctl.command()
@_LAB
@_JSON
@click.option("--timeout", default=180.0, show_default=True, help="Seconds a guest may boot.")
@click.argument("kernels", nargs=-1)
def up(lab_path: Path | None, as_json: bool, timeout: float, kernels: Sequence[str]) -> None:
    """Build and boot KERNELS (all, if none is named) and leave them running.

    `exec` runs commands in them, `status` shows them, `down` ends them. While a
    run measures they are paused.
    """
    from labctl.guests.prepare import prepare

    lab = _load(lab_path)
    fleet = _fleet(lab)
    names = [name for name in _kernels(lab, kernels) if not (fleet.running(name) and not kernels)]
    if names:
        with screen.Building() as building:
            prepared = prepare(lab, names, building)
        topology = lab.guests[lab.defaults.guest]
        specs = [
            prepared.spec(name, name=name, folder=fleet.spec_folder(name), topology=topology)
            for name in names
        ]
        fleet.up(specs, timeout)
    _show_status(fleet, as_json)


@labctl.command()
@_LAB
@_JSON
def status(lab_path: Path | None, as_json: bool) -> None:
    """Show the guests of `up`: state, process, kernel, and what the kernel complained of."""
    _show_status(_fleet(_load(lab_path)), as_json)


@labctl.command("exec", context_settings={"ignore_unknown_options": True})
@_LAB
@_JSON
@click.option("--timeout", default=600.0, show_default=True, help="Seconds it may take.")
@click.argument("guest")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    lab_path: Path | None, as_json: bool, timeout: float, guest: str, command: Sequence[str]
) -> None:
    """Run COMMAND in a GUEST of `up`; its output and exit status become ours.

    One word is given to the guest's shell, several are run as they are.
    """
    fleet = _fleet(_load(lab_path))
    argv = command[0] if len(command) == 1 else list(command)
    with fleet.guest(guest) as running:
        stdin = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
        outcome = running.run(argv, timeout_seconds=timeout, stdin=stdin)
    if as_json:
        _print_json(
            {"schema": 1, "guest": guest, "status": outcome.status, "seconds": outcome.seconds,
             "stdout": outcome.stdout.decode("utf-8", "replace"),
             "stderr": outcome.stderr.decode("utf-8", "replace")}
        )  # fmt: skip
    else:
        sys.stdout.buffer.write(outcome.stdout)
        sys.stderr.buffer.write(outcome.stderr)
        sys.stdout.flush()
    sys.exit(outcome.status)


@labctl.command()
@_LAB
@click.option("-n", "--lines", default=100, show_default=True, help="How many of the last lines.")
@click.argument("guest")
def console(lab_path: Path | None, lines: int, guest: str) -> None:
    """Print the end of a guest's console."""
    from labctl.guests import qemu
    from labctl.transports.console import Console

    fleet = _fleet(_load(lab_path))
    path = fleet.spec_folder(guest) / qemu.CONSOLE_LOG
    if not path.exists():
        raise UserError(f"no guest {guest} has a console", hint="`labctl status` lists the guests")
    click.echo("\n".join(Console(path).tail(lines)))


@labctl.command()
@_LAB
@click.argument("guests", nargs=-1)
def down(lab_path: Path | None, guests: Sequence[str]) -> None:
    """End GUESTS of `up` (all, if none is named)."""
    fleet = _fleet(_load(lab_path))
    for name in guests or fleet.names():
        fleet.down(name)
        click.echo(f"{name} is down")


@labctl.command()
@_LAB
@_JSON
@click.option("--seed", type=int, help="What the order of the cells is drawn from [default: new].")
@click.option("--resume", "resumed", metavar="RUN", help="Go on with an interrupted run.")
@click.argument("experiments", nargs=-1)
def run(
    lab_path: Path | None,
    as_json: bool,
    seed: int | None,
    resumed: str | None,
    experiments: Sequence[str],
) -> None:
    """Measure EXPERIMENTS (all, if none is named) and report what differs.

    Each block boots every kernel afresh and visits its cells in a random order;
    while one guest is measured the others stand still. Every sample is on the
    disk before the next begins: after Ctrl-C, `--resume` goes on.
    """
    from labctl.experiments import session

    if resumed and (experiments or seed is not None):
        raise click.UsageError("--resume goes on as the run began: no EXPERIMENT, no --seed")
    lab = _load(lab_path)
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
            folder = session.run(lab, _chosen(lab, experiments), seed=seed, events=events)
    _show_report(lab, folder.id, as_json=as_json)


@labctl.command()
@_LAB
@_JSON
@_format(
    "markdown",
    "cover-letter",
    "html",
    about="cover-letter is plain text of 72 columns, html one page with plots.",
)
@click.argument("run_id", metavar="[RUN]", default="latest")
def report(lab_path: Path | None, as_json: bool, style: str, run_id: str) -> None:
    """Report a RUN (the latest, if none is named). Needs no QEMU."""
    _show_report(_load(lab_path), run_id, as_json=as_json, style=style)


@labctl.command()
@_LAB
@click.option(
    "--format",
    "style",
    type=click.Choice(["benchfmt", "pyperf", "junit", "csv"]),
    required=True,
    help="benchfmt for benchstat, pyperf JSON, junit for CI, csv of all samples.",
)
@click.option("--kernel", help="Only this kernel's samples, say for `pyperf compare_to`.")
@click.argument("run_id", metavar="[RUN]", default="latest")
def export(lab_path: Path | None, style: str, kernel: str | None, run_id: str) -> None:
    """Print a RUN (the latest, if none is named) in another tool's format.

    Those tools take boots or repetitions as independent of each other, and know
    no blocks: they are witnesses, `labctl report` has the verdict.
    """
    from labctl.reports import report as reports

    text = reports.export_of(_load(lab_path).state / "runs", run_id, style, kernel=kernel)
    click.echo(text, nl=False)


@labctl.command()
@_LAB
@_JSON
@click.argument("first")
@click.argument("second", default="latest")
def compare(lab_path: Path | None, as_json: bool, first: str, second: str) -> None:
    """Set two stored runs side by side, of other days, hosts or versions of a series.

    FIRST is the older run's name, SECOND (the latest, if none is named) the newer
    one's. Compared are ratios against the baseline, which each run has measured
    beside it; times only stand beside them if host, QEMU and baseline are the same.
    Exit status 1 if a cell has become slower against its baseline, 2 if nothing of
    the runs can be compared.
    """
    from labctl.reports import report as reports
    from labctl.reports import side_by_side
    from labctl.results.across import across

    folder = _load(lab_path).state / "runs"
    content = across(*(reports.document_of(folder, name) for name in (first, second)))
    if as_json:
        _print_json(content)
    else:
        click.echo(side_by_side.render(content), nl=False)
    cells = [cell for each in content["experiments"] for cell in each["cells"]]
    if any(cell["verdict"] == "slower" for cell in cells):
        sys.exit(1)


@labctl.group("methodology", cls=_Group)
def methodology() -> None:
    """Look into the method itself."""


@methodology.command("simulate")
@_JSON
@_format("markdown", about="markdown is that of docs/methodology.md.")
@click.option(
    "--runs",
    type=click.IntRange(min=2),
    default=200,
    show_default=True,
    help="Simulated runs of each kind; 200 take a few minutes.",
)
@click.option("--seed", type=click.IntRange(min=0), default=20170315, show_default=True)
def methodology_simulate(as_json: bool, style: str, runs: int, seed: int) -> None:
    """Count how often the statistics are wrong, where the truth is known.

    Runs of 12 cells are simulated, with noise as in real guests and with worse, and
    judged as real ones are. Of intervals of 95 %, 93 to 97 % must hold the truth, and
    in at most 5 % of the runs in which nothing changed may any cell be said to
    differ. Exit status 1 if it is not so. Needs no lab and no QEMU.
    """
    from labctl.lab_models import Statistics
    from labctl.reports import promises
    from labctl.results.simulation import simulate
    from labctl.results.verdict import Rule

    usual = Statistics()
    rule = Rule.of(usual.confidence, usual.minimum_effect)
    with screen.Simulating() as progress:
        kinds = simulate(runs=runs, seed=seed, rule=rule, tell=lambda k, n: progress(k, n, runs))
        found = list(kinds)
    if as_json:
        _print_json(
            {"schema": 1, "runs": runs, "seed": seed, "kinds": [one.document() for one in found]}
        )
    else:
        click.echo(promises.as_table(found, style))
        click.echo(f"\n{runs} runs each, seed {seed}, labctl {__version__}")
    if not all(one.kept for one in found):
        sys.exit(1)


@labctl.group("series", cls=_Group)
def series_() -> None:
    """Look after patch series."""


@series_.command("check")
@_LAB
@_JSON
@click.argument("kernels", nargs=-1)
def series_check(lab_path: Path | None, as_json: bool, kernels: Sequence[str]) -> None:
    """Try each step of the series of KERNELS (all, if none is named) as a reviewer will.

    It must apply, by patch and by `git am`, build and boot; W=1 and sparse must
    find nothing new in the files that the series touches, and the source's own
    checkpatch --strict nothing in the patch. Exit status 1 if anything failed.
    """
    from labctl.checks import series

    lab = _load(lab_path)
    names = _named("series", kernels, (k for k, one in lab.kernels.items() if one.series))
    with screen.Building() as building:
        checked = {name: series.check(lab, name, building) for name in names}
    if as_json:
        _print_json({"schema": 1, "series": {n: [s.document() for s in c]
                                             for n, c in checked.items()}})  # fmt: skip
    else:
        click.echo("\n\n".join(screen.series_steps(n, c) for n, c in checked.items()))
    if not all(step.passed for steps in checked.values() for step in steps):
        sys.exit(1)


@labctl.command()
@_LAB
@_JSON
@_format("ktap", "junit", about="ktap and junit are for CI.")
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
@click.option("-x", "--stop-at-first", is_flag=True, help="End a kernel's checks with a failure.")
@click.option("--without-base", is_flag=True, help="Do not check the kernels' bases beside them.")
@click.argument("kernels", nargs=-1)
def verify(
    lab_path: Path | None,
    as_json: bool,
    style: str,
    seconds: int,
    patterns: Sequence[str],
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

    lab = _load(lab_path)
    with screen.Checking() as checking:
        verified = verify(
            lab,
            _kernels(lab, kernels),
            seconds=seconds,
            options=Options(only=tuple(patterns) or ("*",), stop_at_first=stop_at_first),
            with_base=not without_base,
            events=Events(building=checking.building, checking=checking.checking),
        )
    document = verified.document()
    if as_json:
        _print_json(document)
    else:
        click.echo(FORMATS[style](document), nl=False)
    if not verified.passed:
        sys.exit(1)


@labctl.command()
@_LAB
@click.option("--runs", "runs_too", is_flag=True, help="Also what was measured.")
def clean(lab_path: Path | None, runs_too: bool) -> None:
    """Remove what was built, to make room; what was measured stays.

    Guests of `up` run from images, so they must be down.
    """
    from labctl.guests.prepare import remove_built

    lab = _load(lab_path)
    names = _fleet(lab).names()
    if names:
        raise UserError(f"up: {', '.join(names)}", hint="`labctl down` ends them")
    for folder in remove_built(lab, runs_too=runs_too):
        click.echo(f"removed {folder}")


def _show_report(lab: Lab, run_id: str, *, as_json: bool, style: str = "terminal") -> None:
    from labctl.reports import report as reports

    runs = lab.state / "runs"
    if as_json:
        document = reports.document_of(runs, run_id)
        _print_json(document)
    else:
        document, text = reports.report_of(runs, run_id, style)
        click.echo(text, nl=False)
    if reports.found_a_problem(document):
        sys.exit(1)


def _show_status(fleet: Fleet, as_json: bool) -> None:
    rows = fleet.status()
    if as_json:
        _print_json({"schema": 1, "guests": rows})
    elif rows:
        shown = [
            {"guest": r["name"], "state": r["state"], "pid": r["pid"], "release": r["release"],
             "image": r["image"], "accel": r["accel"], "complaints": len(r["complaints"])}
            for r in rows
        ]  # fmt: skip
        click.echo(screen.table(shown, shorten=("image",)))
    else:
        click.echo("no guest is up; `labctl up` starts the lab's kernels")


def _find_lab() -> Path:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "lab.yaml").is_file():
            return folder / "lab.yaml"
    raise UserError(
        f"there is no lab.yaml in {here} or above it",
        hint="`labctl init` writes one, `--lab FILE` names one",
    )


def _load(path: Path | None) -> Lab:
    from labctl import host
    from labctl.lab import load

    return load(path or _find_lab(), host_memory_bytes=host.memory_bytes())


def _fleet(lab: Lab) -> Fleet:
    from labctl.guests.fleet import Fleet

    return Fleet(lab.state / "guests")


def _chosen(lab: Lab, experiments: Sequence[str]) -> list[str]:
    return _named("experiment", experiments, lab.experiments)


def _kernels(lab: Lab, kernels: Sequence[str]) -> list[str]:
    return _named("kernel", kernels, lab.kernels)


def _named(what: str, asked: Sequence[str], known: Iterable[str]) -> list[str]:
    names = list(known)
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise UserError(
            f"no {what} is called {', '.join(unknown)}", hint=f"there are: {', '.join(names)}"
        )
    return list(dict.fromkeys(asked)) or names


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2))


def _quietly(action: Callable[[], object]) -> NoReturn:
    """Run a command; turn its errors into a message and an exit status."""
    try:
        action()
    except LabError as error:
        click.echo(f"labctl: {error}", err=True)
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("labctl: interrupted", err=True)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    sys.exit(0)


def main() -> NoReturn:
    """Entry point of the `labctl` program."""
    _quietly(lambda: labctl.main(standalone_mode=False))


if __name__ == "__main__":
    main()
