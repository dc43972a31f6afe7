"""`servd scale`: another number of workers, until the file changes it."""

from __future__ import annotations

import click

from servd.cli.act import ActOptions, act, act_options, service_route
from servd.cli.completion import service_names
from servd.errors import UsageError


@click.command("scale")
@click.argument("target", metavar="NAME=N", shell_complete=service_names)
@click.option("--cascade", is_flag=True, help="With N = 0: stop the services that need it too.")
@act_options
def command(options: ActOptions, target: str, cascade: bool) -> int:
    """Give service NAME another number of workers (N)."""
    name, _, number = target.partition("=")
    if not number.isdecimal():
        raise UsageError(f"scale {target}: write scale NAME=N, such as scale web=4")
    route = service_route(name, "scale")
    return act(options, route, workers=int(number), cascade=cascade)
