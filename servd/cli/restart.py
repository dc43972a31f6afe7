"""`servd restart`: new workers for an unchanged definition, without losing a request."""

from __future__ import annotations

import click

from servd.cli.act import ActOptions, act, act_options, service_route
from servd.cli.completion import service_names
from servd.errors import UsageError


@click.command("restart")
@click.argument("name", required=False, shell_complete=service_names)
@click.option("--all", "everything", is_flag=True, help="Every service.")
@act_options
def command(options: ActOptions, name: str | None, everything: bool) -> int:
    """Replace the workers of service NAME (or of --all), to run new code."""
    if (name is not None) == everything:
        raise UsageError("restart NAME, or restart --all")
    return act(options, "/v1/restart" if name is None else service_route(name, "restart"))
