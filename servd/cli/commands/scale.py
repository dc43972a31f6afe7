"""`servd scale`: sets the number of workers until the configuration changes it."""

from __future__ import annotations

from dataclasses import replace

import click

from servd.cli.act import ActOptions, act, act_options, service_route
from servd.cli.commands.completion import service_names
from servd.cli.render.output import workers as count_of
from servd.core.errors import Exit, UsageError


@click.command("scale")
@click.argument(
    "targets", metavar="NAME=N...", nargs=-1, required=True, shell_complete=service_names
)
@click.option("--cascade", is_flag=True, help="With NAME=0: also stop its dependents.")
@act_options
def command(options: ActOptions, targets: tuple[str, ...], cascade: bool) -> int:
    """Set the number of workers of services.

    The number holds until the configuration changes `workers`. NAME=0 stops the service, NAME=auto
    leaves it to the configuration again.
    """
    statuses = [
        act(
            replace(options, wait_drained=options.wait_drained or workers == 0),
            service_route(name, "scale"),
            _already(name, workers),
            workers=workers,
            cascade=cascade,
        )
        for name, workers in _wanted(targets).items()
    ]
    return next(filter(None, statuses), Exit.OK)


def _already(name: str, workers: int | str) -> str:
    if workers == "auto":
        return f"{name} already has what the configuration says"
    if not workers:
        return f"{name} is already stopped"
    return f"{name} already has {count_of(int(workers))}"


def _wanted(targets: tuple[str, ...]) -> dict[str, int | str]:
    """Parses `web=2 api=auto`, or `web 2`, to workers by name. Raises `UsageError`."""
    if len(targets) == 2 and "=" not in targets[0]:
        targets = (f"{targets[0]}={targets[1]}",)
    found: dict[str, int | str] = {}
    for target in targets:
        name, _, number = target.partition("=")
        if number != "auto" and not (number.isascii() and number.isdecimal()):
            raise UsageError(f"scale {target}: expected NAME=N, such as web=4")
        if not name:
            raise UsageError("service name is missing")
        found[name] = number if number == "auto" else int(number)
    return found
