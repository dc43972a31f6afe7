"""`servd restart`: replaces the workers of an unchanged service without losing a request."""

from __future__ import annotations

import click

from servd.cli.act import ActOptions, act, act_on_each, act_options
from servd.cli.commands.completion import service_names
from servd.core.errors import UsageError


@click.command("restart")
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=service_names)
@click.option("--all", "everything", is_flag=True, help="Every service that is not kept stopped.")
@act_options
def command(options: ActOptions, names: tuple[str, ...], everything: bool) -> int:
    """Replace the workers of services NAME... (or of --all), to run new code."""
    if bool(names) == everything:
        raise UsageError("restart NAME, or restart --all")
    if everything:
        return act(options, "/v1/restart", "every service is kept stopped")
    return act_on_each(options, names, "restart")
