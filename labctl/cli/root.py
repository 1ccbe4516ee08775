"""The `labctl` command itself, and what all of its commands share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl import __version__
from labctl.cli.ending import pipes_told
from labctl.errors import UserError
from labctl.lab_use import Use

if TYPE_CHECKING:
    from labctl.guests.fleet import Fleet
    from labctl.guests.guest import Guest
    from labctl.lab_models import Lab

# Modules that bring numpy, pydantic or fabric with them are imported by the
# command that needs them, so that `--help` and shell completion stay quick.

LAB = click.option(
    "--lab",
    "lab_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The lab's description [default: lab.yaml here or in a folder above].",
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


class _Seconds(click.FloatRange):
    """A deadline: `nan` would never come, and lies in every range."""

    name = "seconds"

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a number of seconds.", param, ctx)
        return float(seconds)


SECONDS = _Seconds(min=0, min_open=True)


def format_option(*others: str, about: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option of where a report goes: the terminal, or one of the others."""
    return click.option(
        "--format",
        "style",
        type=click.Choice(["terminal", *others]),
        default="terminal",
        show_default=True,
        help=f"Where the report goes; {about}",
    )


class Group(click.Group):
    """A group whose help lists commands in the order in which they were added."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:  # noqa: ANN401
        """Return a context; `--help` prints while it is made."""
        with pipes_told():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        """Run the command that was asked for."""
        with pipes_told():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands in that order."""
        return list(self.commands)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done; 1 the lab found a problem (a regression, a crashed guest, a "
    "failed build); 2 the input is wrong; 3 the host cannot do it; 70 a fault of labctl itself; "
    "129, 130, 143 ended by a hang-up, by Ctrl-C, by SIGTERM.",
)
@click.version_option(__version__)
def labctl() -> None:
    """Say with sound statistics what a kernel patch series changed.

    labctl builds stock and patched kernels, boots them as NUMA guests, turns
    every knob, measures in interleaved blocks and reports ratios with
    confidence intervals. All of it is described in lab.yaml.

    \b
    Begin with:
      labctl doctor          what this host can do for a lab, and what mends the rest
      labctl init            write a commented lab.yaml
      labctl plan smoke      what would be done, and how long it takes
      labctl run smoke       build, boot, measure, report
    """  # noqa: D301 - click wants the character itself


def find_lab() -> Path | None:
    """Return the lab.yaml here or in a folder above, None if there is none."""
    here = Path.cwd()
    found = (folder / "lab.yaml" for folder in (here, *here.parents))
    return next((path for path in found if path.is_file()), None)


def _found_lab() -> Path:
    path = find_lab()
    if path is None:
        raise UserError(
            f"there is no lab.yaml in {Path.cwd()} or above it",
            hint="`labctl init` writes one, `--lab FILE` names one",
        )
    return path


def load_lab(path: Path | None, use: Use = Use.WORKS) -> Lab:
    """Read the lab of `--lab`, or the lab.yaml here or in a folder above.

    Guests that do not fit into this host's memory matter only to a command that works.
    """
    from labctl import host
    from labctl.lab import load
    from labctl.lab_state import GUESTS, PAUSED, is_fit

    memory_bytes = host.memory_bytes() if use is Use.WORKS else None
    lab = load(path or _found_lab(), host_memory_bytes=memory_bytes, use=use)
    is_paused = use is not Use.ENDS and next(lab.state.glob(f"{GUESTS}/*/{PAUSED}"), None)
    if is_paused and is_fit(lab.state):
        fleet_of(lab).recover()  # of a labctl that was killed
    return lab


def lab_to_work(path: Path | None) -> Lab:
    """Read the lab, and keep `labctl clean` out of its state folder until the command ends."""
    from labctl import state

    lab = load_lab(path)
    click.get_current_context().with_resource(state.used(lab.state))
    return lab


def fleet_of(lab: Lab) -> Fleet:
    """Return the guests of `labctl up`."""
    from labctl.guests.fleet import Fleet

    return Fleet(lab.state / "guests")


def check_awake(guest: Guest) -> None:
    """Refuse to talk to a guest that another labctl has paused: to do so would resume it.

    Raises:
        UserError: it is paused.
    """
    from labctl.guests.guest import State

    if guest.state is State.PAUSED:
        raise UserError(
            f"the guest {guest.name} is paused: a run is measuring or gdb is attached",
            hint="wait until it finishes",
        )


def chosen(lab: Lab, experiments: Sequence[str]) -> list[str]:
    """Return the experiments that were asked for; all, if none was."""
    return named("experiment", experiments, lab.experiments)


def kernels_of(lab: Lab, kernels: Sequence[str]) -> list[str]:
    """Return the kernels that were asked for; all, if none was."""
    return named("kernel", kernels, lab.kernels)


def named(what: str, asked: Sequence[str], known: Iterable[str]) -> list[str]:
    """Return the names that were asked for, all known ones if none was.

    Raises:
        UserError: one of them is not known.
    """
    names = list(known)
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise UserError(
            f"no {what} is called {', '.join(unknown)}", hint=f"there are: {', '.join(names)}"
        )
    return list(dict.fromkeys(asked)) or names


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(document, indent=2))
