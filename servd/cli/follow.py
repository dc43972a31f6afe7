"""Lines of the daemon's log on a terminal: what `servd logs` and `servd events` share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import click

from servd.cli.admin_options import admin_client, admin_options
from servd.cli.commands.completion import service_names
from servd.cli.render.output import colours

LEVELS = ("debug", "info", "warning", "error", "critical")


def follow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments that both have."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Each line as JSON."),
        click.option("--level", type=click.Choice(LEVELS), help="Lines of this level and above."),
        click.option(
            "-n",
            "--lines",
            default=100,
            show_default=True,
            type=click.IntRange(0, 10_000),
            help="Lines of the past.",
        ),
        click.option("-f", "--follow", is_flag=True, help="Go on with what comes."),
        click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=service_names),
    ):
        command = option(command)
    return admin_options(command)


def show_lines(
    route: str,
    *,
    config: str | None,
    admin: str | None,
    names: Sequence[str],
    follow: bool,
    lines: int,
    level: str | None,
    as_json: bool,
) -> None:
    """Prints the lines of a stream, as they come."""
    client = admin_client(config, admin)
    if names:
        client.services(names)  # says which is not there
    query = [("follow", str(follow).lower()), ("lines", str(lines))]
    query += [("service", name) for name in names]
    show = _shower(as_json=as_json)
    least = LEVELS.index(level) if level else 0
    try:
        for data in client.follow(f"{route}?{urlencode(query)}"):
            if data and _level(data) >= least:
                show(data)
    except KeyboardInterrupt:
        return


def _level(data: str) -> int:
    try:
        level = json.loads(data).get("level", "info")
    except (ValueError, AttributeError):
        return 1
    return LEVELS.index(level) if level in LEVELS else 1


def _shower(*, as_json: bool) -> Callable[[str], None]:
    if as_json:
        return _print
    from servd.daemon.log.sink import console_renderer

    render = console_renderer(colours=colours(sys.stdout))
    return lambda data: _print(render(data.encode()).decode(errors="replace"))


def _print(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()
