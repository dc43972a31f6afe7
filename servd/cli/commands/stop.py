"""`servd stop`: stops services until they are started, or the file changes their workers."""

from __future__ import annotations

from dataclasses import replace

import click

from servd.cli.act import ActOptions, act_on_each, act_options
from servd.cli.commands.completion import service_names


@click.command("stop")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=service_names)
@click.option("--cascade", is_flag=True, help="Stop the services that need them too.")
@act_options
def command(options: ActOptions, names: tuple[str, ...], cascade: bool) -> int:
    """Drain services NAME... and keep them stopped; wait until their workers have ended."""
    options = replace(options, wait_drained=True)
    return act_on_each(options, names, "stop", "is stopped already", cascade=cascade)
