"""`servd completion SHELL`: the script that makes a shell complete servd's command line."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from servd.errors import UsageError


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL: `eval "$(servd completion bash)"`."""
    found = get_completion_class(shell)
    if found is None:
        raise UsageError(f"no completion for {shell}")
    root = ctx.find_root().command
    click.echo(found(root, {}, "servd", "_SERVD_COMPLETE").source())
