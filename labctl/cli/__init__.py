"""The commands: parse, call, print. Nothing below this package prints or exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

import click

# In the order in which `labctl --help` lists their commands.
from labctl.cli import bisect, checks, doctor, guests, inside, lab, nightly, runs
from labctl.cli.root import labctl
from labctl.errors import LabError
from labctl.terminal import unwound

_INTERRUPTED = 130

for _module in (lab, doctor, guests, inside, runs, checks, nightly, bisect):
    for _command in _module.COMMANDS:
        labctl.add_command(_command)


def _quietly(action: Callable[[], object]) -> NoReturn:
    """Run a command; turn its errors into a message and an exit status."""
    try:
        with unwound():
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
