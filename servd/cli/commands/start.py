"""`servd start`: starts services that were stopped or are not well."""

from __future__ import annotations

import click

from servd.cli.act import ActOptions, act_on_each, act_options
from servd.cli.commands.completion import service_names


@click.command("start")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=service_names)
@act_options
def command(options: ActOptions, names: tuple[str, ...]) -> int:
    """Start services NAME..., which were stopped by hand or are not well, and what they need."""
    return act_on_each(options, names, "start", "runs already")
