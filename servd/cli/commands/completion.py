"""`servd completion SHELL`: prints the completion script of a shell."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from servd.core.errors import ServdError


def service_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Returns the service names of the configuration; none without one."""
    from servd.cli.source import load_config

    config = ctx.params.get("config") or ctx.find_root().params.get("config")
    try:
        services = load_config(config).config.services
    except ServdError:
        return []
    return [CompletionItem(name) for name in sorted(services) if name.startswith(incomplete)]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    To enable it in bash: `eval "$(servd completion bash)"`.
    """
    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root().command
    click.echo(found(root, {}, "servd", "_SERVD_COMPLETE").source())
