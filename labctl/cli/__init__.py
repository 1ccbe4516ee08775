"""The commands: parse, call, print. Nothing below this package prints or exits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

# In the order in which `labctl --help` lists their commands.
from labctl.cli import bisect, checks, doctor, ending, guests, inside, lab, nightly, runs
from labctl.cli.root import labctl

for _module in (lab, doctor, guests, inside, runs, checks, nightly, bisect):
    for _command in _module.COMMANDS:
        labctl.add_command(_command)


def _quietly(action: Callable[[], object]) -> NoReturn:
    ending.run(action)


def main() -> NoReturn:
    """Entry point of the `labctl` program."""
    _quietly(lambda: labctl.main(standalone_mode=False))
