"""The commands and their options, from click."""

from __future__ import annotations

from collections.abc import Iterator

import click
from page import paragraphs, table

from labctl.cli import labctl


def commands(
    command: click.Command, names: tuple[str, ...], parent: click.Context | None
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    """Yield each command with its names and context, a group before its own."""
    context = click.Context(command, info_name=names[-1], parent=parent, **command.context_settings)
    yield names, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from commands(found, (*names, name), context)


def cli() -> str:
    """Return the page on commands."""
    text = "# CLI\n\n"
    for names, command, context in commands(labctl, ("labctl",), None):
        usage = " ".join([*names, *command.collect_usage_pieces(context)])
        text += f"## {' '.join(names)}\n\n    {usage}\n\n{paragraphs(command.help)}\n"
        records = [p.get_help_record(context) for p in command.get_params(context)]
        rows = [(f"`{record[0]}`", record[1]) for record in records if record and record[1]]
        text += table(("option", "meaning"), rows) + "\n"
    return text.rstrip() + "\n"
