"""Prints log lines of the daemon: shared by `servd logs` and `servd events`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import click

from servd.cli.admin_options import admin_client, admin_options
from servd.cli.commands.completion import service_names
from servd.cli.render.output import colours
from servd.daemon.log.event import LogEvent

LEVELS = ("debug", "info", "warning", "error", "critical")


def follow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the arguments that both commands share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print each line as JSON."),
        click.option(
            "--level",
            type=click.Choice(LEVELS),
            metavar="LEVEL",
            help=f"Lowest level to show: {', '.join(LEVELS[:-1])} or {LEVELS[-1]}.",
        ),
        click.option(
            "-n",
            "--lines",
            default=100,
            show_default=True,
            type=click.IntRange(0, 10_000),
            metavar="N",
            help="How many past lines to show.",
        ),
        click.option("-f", "--follow", is_flag=True, help="Keep printing new lines."),
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
    """Prints the lines of a stream as they arrive."""
    client = admin_client(config, admin)
    if names:
        client.services(names)  # raises for an unknown name
    query = [("follow", str(follow).lower()), ("lines", str(lines))]
    query += [("service", name) for name in names]
    render = _renderer(as_json=as_json)
    least = LEVELS.index(level) if level else 0
    try:
        for data in client.follow(f"{route}?{urlencode(query)}"):
            if not data:
                continue
            line = LogEvent.by_worker("", data.encode())
            found = (line.fields or {}).get("level")
            if LEVELS.index(found if found in LEVELS else "info") >= least:
                click.echo(render(line).decode(errors="replace"))
    except KeyboardInterrupt:
        return


def _renderer(*, as_json: bool) -> Callable[[LogEvent], bytes]:
    if as_json:
        return lambda line: line.json
    from servd.daemon.log.console import console_renderer

    return console_renderer(colours=colours(sys.stdout))
