"""`labctl completion`: print click's completion scripts."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_PROGRAM = "labctl"
_VARIABLE = "_LABCTL_COMPLETE"  # as click derives it from the program's name


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script for SHELL.

    \b
    Examples:
      labctl completion bash > ~/.local/share/bash-completion/completions/labctl
      labctl completion zsh > "${fpath[1]}/_labctl"
      labctl completion fish > ~/.config/fish/completions/labctl.fish
    """  # noqa: D301 - click wants the character itself
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(context.find_root().command, {}, _PROGRAM, _VARIABLE).source())


COMMANDS = (completion,)
