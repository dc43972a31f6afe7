"""`servd restart`: replaces the workers of an unchanged service without losing a request."""

from __future__ import annotations

import click

from servd.cli.act import ActOptions, act, act_on_each, act_options, now_option, only_if
from servd.cli.commands.completion import service_names
from servd.core.errors import UsageError


@click.command("restart")
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=service_names)
@click.option(
    "--all", "everything", is_flag=True, help="Restart every service that is not stopped."
)
@act_options
@now_option
def command(options: ActOptions, names: tuple[str, ...], everything: bool, now: bool) -> int:
    """Replace the workers of services, to load new code."""
    if bool(names) == everything:
        raise UsageError("expected either service names or --all")
    if everything:
        return act(options, "/v1/restart", "all services are stopped", **only_if(now=now))
    return act_on_each(options, names, "restart", **only_if(now=now))
