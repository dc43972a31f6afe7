"""`servd stop`: stops services until they are started, or the config changes `workers`."""

from __future__ import annotations

from dataclasses import replace

import click

from servd.cli.act import ActOptions, act_on_each, act_options
from servd.cli.commands.completion import service_names


@click.command("stop")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=service_names)
@click.option("--cascade", is_flag=True, help="Also stop the services that depend on them.")
@act_options
def command(options: ActOptions, names: tuple[str, ...], cascade: bool) -> int:
    """Stop services and keep them stopped.

    Lets running requests finish and waits until the workers have exited.
    """
    options = replace(options, wait_drained=True)
    return act_on_each(options, names, "stop", "is already stopped", cascade=cascade)
