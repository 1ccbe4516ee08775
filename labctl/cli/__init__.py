"""The commands: parse, call, print. No other package prints or exits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from labctl.cli import (
    bisect,
    checks,
    completion,
    doctor,
    ending,
    explain,
    guests,
    inside,
    lab,
    methodology,
    model,
    nightly,
    packing,
    runs,
    site,
    trial,
    workers,
    workloads,
)
from labctl.cli.root import labctl

__all__ = ["labctl", "main"]

# The order in which `labctl --help` lists the commands.
for _module in (
    lab,
    workloads,
    doctor,
    guests,
    inside,
    runs,
    workers,
    explain,
    model,
    packing,
    site,
    trial,
    checks,
    methodology,
    nightly,
    bisect,
    completion,
):
    for _command in _module.COMMANDS:
        labctl.add_command(_command)


def _quietly(action: Callable[[], object]) -> NoReturn:
    ending.run(action)


def main() -> NoReturn:
    """Entry point of the `labctl` program."""
    _quietly(lambda: labctl.main(standalone_mode=False))
