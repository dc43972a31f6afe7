"""`servd start`: the opposite of `servd stop`."""

from __future__ import annotations

import click

from servd.cli.act import ActOptions, act, act_options, service_route
from servd.cli.completion import service_names


@click.command("start")
@click.argument("name", shell_complete=service_names)
@act_options
def command(options: ActOptions, name: str) -> int:
    """Start service NAME, which was stopped by hand or is not well, and what it needs."""
    return act(options, service_route(name, "start"))
