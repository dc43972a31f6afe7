"""`servd stop`: keeps a service stopped, until it is started or the file changes its workers."""

from __future__ import annotations

from dataclasses import replace

import click

from servd.cli.act import ActOptions, act, act_options, service_route
from servd.cli.completion import service_names


@click.command("stop")
@click.argument("name", shell_complete=service_names)
@click.option("--cascade", is_flag=True, help="Stop the services that need it too.")
@act_options
def command(options: ActOptions, name: str, cascade: bool) -> int:
    """Drain service NAME and keep it stopped; wait until its workers have ended."""
    return act(replace(options, wait_drained=True), service_route(name, "stop"), cascade=cascade)
