"""The `labctl` command group, and the options and helpers that its commands share."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl import __version__, units
from labctl.cli.ending import broken_pipes_wrapped
from labctl.errors import UserError
from labctl.lab.use import Use

if TYPE_CHECKING:
    from msgspec import Struct

    from labctl.guests.fleet import Fleet
    from labctl.guests.guest import Guest
    from labctl.lab.models import Lab
    from labctl.scheduler.engine import Engine
    from labctl.units import Scalar

# Commands import numpy, pydantic and fabric only where they need them, so that
# `--help` and shell completion stay fast.

LAB = click.option(
    "--lab",
    "lab_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Lab file [default: lab.yaml in the current or a parent folder].",
)
SCHEDULER = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Measure on the workers of this Dask scheduler: tls://HOST:PORT, a scheduler file, or "
    "none for this host [default: scheduler of lab.yaml, else none].",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


if TYPE_CHECKING:
    _FloatType = click.ParamType[float]
else:
    _FloatType = click.ParamType  # not generic in click 8.1


class _Duration(_FloatType):
    """A duration above 0 as in lab.yaml, in seconds: `90`, `90s`, `1.5min`, `2h`; also `10m`."""

    name = "duration"

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        text = units.quote(str(value))
        try:
            seconds = units.duration(re.sub(r"(?<=\d) ?m$", "min", str(value)))
        except units.UnitError:
            self.fail(f"expected a duration such as 90s, 10min or 2h, got {text}", param, ctx)
        if seconds <= 0:
            self.fail(f"expected a duration above 0, got {text}", param, ctx)
        if self._whole and seconds != int(seconds):
            self.fail(f"expected whole seconds, got {text}", param, ctx)
        return int(seconds) if self._whole else seconds


class _ShareType(_FloatType):
    """A share from 0 to below 1 as in lab.yaml: `2%` or `0.02`."""

    name = "share"

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        text = units.quote(str(value))
        try:
            share = units.share(value)
        except units.UnitError:
            self.fail(f"expected a share such as 2% or 0.02, got {text}", param, ctx)
        if not 0 <= share < 1:
            self.fail(f"expected a share from 0 to below 100%, got {text}", param, ctx)
        return share


DURATION = _Duration()
SHARE = _ShareType()
WHOLE_SECONDS = _Duration(whole=True)  # for programs of a guest


def format_option(*others: str, about: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the `--format` option: `terminal` (default) or one of `others`."""
    return click.option(
        "--format",
        "style",
        type=click.Choice(["terminal", *others]),
        default="terminal",
        show_default=True,
        help=f"Output format; {about}",
    )


class Group(click.Group):
    """A group whose help lists commands in the order in which they are added."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:  # noqa: ANN401
        """Return a context. `--help` prints here, so broken pipes are wrapped."""
        with broken_pipes_wrapped():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        """Run the chosen command."""
        with broken_pipes_wrapped():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the command names in the order in which they were added."""
        return list(self.commands)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done; 1 the lab found a problem (a regression, a crashed guest, a "
    "failed build); 2 invalid input; 3 something is missing on the host; 70 internal error; "
    "129, 130, 143 ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM.",
)
@click.version_option(__version__)
@click.option(
    "-v",
    "--verbose",
    count=True,
    help="Print each command that labctl starts; -vv also its output.",
)
@click.pass_context
def labctl(ctx: click.Context, verbose: int) -> None:
    """Measure what a Linux kernel patch series changes.

    labctl builds stock and patched kernels, boots them as NUMA guests, sets
    tunables, measures in interleaved blocks and reports ratios with confidence
    intervals. lab.yaml describes the kernels, guests and experiments.

    \b
    In a kernel tree:
      labctl try             compare HEAD with its base in upstream

    \b
    Start with:
      labctl doctor          check this host and suggest fixes
      labctl init            write a commented lab.yaml
      labctl plan smoke      show what `run` would do and how long it takes
      labctl run smoke       build, boot, measure, report
    """  # noqa: D301 - click wants the character itself
    if verbose:
        from labctl.cli.verbose import shown

        ctx.with_resource(shown(verbose))


def find_lab() -> Path | None:
    """Return the lab.yaml in the current or a parent folder, None if there is none."""
    here = Path.cwd()
    found = (folder / "lab.yaml" for folder in (here, *here.parents))
    return next((path for path in found if path.is_file()), None)


def _found_lab() -> Path:
    path = find_lab()
    if path is None:
        raise UserError(
            f"no lab.yaml in {Path.cwd()} or its parent folders",
            hint="create one with `labctl init`, or pass `--lab FILE`",
        )
    return path


def load_lab(path: Path | None, use: Use = Use.WORKS, *, is_local: bool = True) -> Lab:
    """Load the lab from `path`, by default the lab.yaml of `find_lab`.

    Only `Use.WORKS` rejects guests that do not fit into this host's memory, if they run here
    (`is_local`).
    """
    from labctl.host.facts import read_memory
    from labctl.host.state_folder import is_fit
    from labctl.lab.load import load
    from labctl.lab.state import PAUSED

    place = path or _found_lab()
    if use is Use.WORKS and is_local:
        memory = read_memory()
        lab = load(place, memory.total_bytes, limited_by=memory.limited_by)
    else:
        lab = load(place, use=use)
    is_paused = use is not Use.ENDS and next(lab.state_folder.guests.glob(f"*/{PAUSED}"), None)
    if is_paused and is_fit(lab.state):
        fleet_of(lab).recover()  # a killed labctl leaves its guests paused
    return lab


def ask_host() -> None:
    """Start what the start of guests asks the host's programs; they answer during imports."""
    from labctl.arch import X86_64
    from labctl.host import sandbox, tools

    tools.ask_ahead(*tools.VERSIONS, sandbox.question(X86_64.qemu))


def lab_to_work(path: Path | None, *, is_local: bool = True) -> Lab:
    """Load the lab and lock its state folder against `labctl clean` until the command ends."""
    from labctl.host import state

    lab = load_lab(path, is_local=is_local)
    click.get_current_context().with_resource(state.used(lab.state))
    return lab


@contextlib.contextmanager
def engine_of(
    lab: Lab, asked: str | None, warning: Callable[[str], None], again: str = ""
) -> Iterator[Engine | None]:
    """Connect to the scheduler that is asked for, by default the lab's; None for this host.

    `again` says how to continue if there are no workers any more, by default with
    `labctl run --resume`.

    Raises:
        ConfigError: there is none, and the guests do not fit into this host's memory.
        UserError: its address is not valid, or not safe.
        HostError: it cannot be reached.
    """
    from labctl.host.facts import read_memory
    from labctl.lab.load import check_host

    given, folder = (asked, Path()) if asked is not None else (lab.scheduler, lab.root)
    if given is None or given == "none":
        memory = read_memory()
        check_host(lab, memory.total_bytes, limited_by=memory.limited_by)
        yield None
        return
    from labctl.scheduler.engine import opened
    from labctl.scheduler.job import RESUME

    with opened(given, warning=warning, folder=folder, again=again or RESUME) as engine:
        yield engine


def at_once_of(engine: Engine | None) -> Callable[[], int]:
    """Return the function that returns how many blocks are measured at the same time."""
    return (lambda: 1) if engine is None else (lambda: engine.size)


def fleet_of(lab: Lab) -> Fleet:
    """Return the guests of `labctl up`."""
    from labctl.guests.fleet import Fleet

    return Fleet(lab.state_folder.guests)


def check_awake(guest: Guest) -> None:
    """Reject a guest that another labctl has paused, since running a command would resume it.

    Raises:
        UserError: the guest is paused.
    """
    from labctl.guests.guest import State

    if guest.state is State.PAUSED:
        raise UserError(
            f"guest {guest.name} is paused: a run is measuring or gdb is attached",
            hint="wait until it finishes",
        )


def chosen(lab: Lab, experiments: Sequence[str]) -> list[str]:
    """Return the given experiments, by default all of the lab."""
    return named("experiment", experiments, lab.experiments)


def kernels_of(lab: Lab, kernels: Sequence[str]) -> list[str]:
    """Return the given kernels, by default all of the lab."""
    return named("kernel", kernels, lab.kernels)


def named(what: str, asked: Sequence[str], known: Iterable[str]) -> list[str]:
    """Return the `asked` names without duplicates, by default all `known` names.

    Raises:
        UserError: a name is unknown.
    """
    names = list(known)
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise UserError(
            f"unknown {what}: {', '.join(unknown)}", hint=f"available: {', '.join(names)}"
        )
    return list(dict.fromkeys(asked)) or names


def setting_of(text: str) -> tuple[str, Scalar]:
    """Return the name and the value of `--set NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set: expected NAME=VALUE, got {text!r}")
    return name, units.scalar(value)


def print_json(document: Struct | dict[str, Any]) -> None:
    """Print one JSON object."""
    from msgspec import to_builtins

    click.echo(json.dumps(to_builtins(document), indent=2))
