"""`servd start`: starts stopped and failed services."""

from __future__ import annotations

import click

from servd.cli.act import ActOptions, act_on_each, act_options
from servd.cli.commands.completion import service_names


@click.command("start")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=service_names)
@act_options
def command(options: ActOptions, names: tuple[str, ...]) -> int:
    """Start stopped or failed services and their dependencies."""
    return act_on_each(options, names, "start", "is already running")
