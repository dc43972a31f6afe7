"""`servd dashboard`: the daemon's page, on a loopback port of its own."""

from __future__ import annotations

import contextlib
import webbrowser

import click

from servd.cli.admin_client import NoDaemonError, admin_client, admin_options
from servd.cli.output import say


@click.command("dashboard")
@admin_options
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="[default: a free one]")
@click.option("--browser/--no-browser", default=True, help="Open it in a browser.")
def command(config: str | None, admin: str | None, port: int, browser: bool) -> None:
    """Show the page of the daemon on a port of 127.0.0.1, until Ctrl-C.

    The address holds a token that opens the page once.
    """
    client = admin_client(config, admin)
    if not client.get("/v1/status").good:
        raise NoDaemonError(f"servd at {client.place} does not answer as it should")
    from servd.cli.dashboard_server import DashboardServer

    server = DashboardServer(client, port)
    click.echo(server.url)
    say("open this address in a browser; it works once. Ctrl-C ends it")
    if browser:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(server.url)
    server.run()
