"""Write a man page for each command into a folder: `make man`."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import click
from click_man.core import generate_man_page
from commands import commands
from page import first_line

from labctl import __version__
from labctl.cli import labctl


def as_roff(text: str) -> str:
    """Return the help of a command for roff; lines that click keeps are not filled."""
    parts = []
    for part in inspect.cleandoc(text).split("\n\n"):
        keeps, body = part.startswith("\b\n"), part.removeprefix("\b\n")
        lines = [line.replace("\\", "\\e") for line in body.splitlines()]
        # A line that begins with a dot or an apostrophe would be a request.
        lines = [f"\\&{line}" if line[:1] in (".", "'") else line for line in lines]
        parts.append("\n".join([".nf", *lines, ".fi"] if keeps else lines))
    return "\n.PP\n".join(parts)


def man_page(command: click.Command, context: click.Context) -> str:
    """Return the man page of a command."""
    text = command.help or ""
    command.short_help = first_line(text).rstrip(".")
    command.help = as_roff(text)
    if command.epilog:
        command.help += f"\n.PP\n{as_roff(command.epilog)}"
    page: str = generate_man_page(context, version=f"labctl {__version__}")
    return page


def main() -> None:
    """Write the pages into the folder that the first argument names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    # Subcommands first: a group's page has the short help of its commands.
    for names, command, context in reversed(list(commands(labctl, ("labctl",), None))):
        (folder / f"{'-'.join(names)}.1").write_text(man_page(command, context))


if __name__ == "__main__":
    main()
