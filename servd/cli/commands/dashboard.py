"""`servd dashboard`: serves the daemon's page on a loopback port."""

from __future__ import annotations

import contextlib
import tempfile
import webbrowser
from collections.abc import Iterator

import click

from servd.cli.admin_options import admin_client, admin_options
from servd.cli.render.output import say


@click.command("dashboard")
@admin_options
@click.option(
    "--port",
    default=0,
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Port on 127.0.0.1.  [default: a free port]",
)
@click.option(
    "--browser/--no-browser", default=True, show_default=True, help="Open the page in a browser."
)
def command(config: str | None, admin: str | None, port: int, browser: bool) -> None:
    """Open the dashboard of the daemon in a browser.

    Serves the page on 127.0.0.1 until Ctrl-C. The printed address contains a token and works once.
    """
    client = admin_client(config, admin)
    client.status()  # raises if the daemon is not running
    from servd.cli.dashboard.server import DashboardServer

    server = DashboardServer(client, port)
    click.echo(server.url)
    say("Open this address in a browser (it works once). Press Ctrl-C to stop.")
    with _opened(server.url) if browser else contextlib.nullcontext():
        server.run()


@contextlib.contextmanager
def _opened(url: str) -> Iterator[None]:
    """Opens the address through a private file that redirects to it, since process arguments are
    public.
    """
    with tempfile.NamedTemporaryFile("w", prefix="servd-", suffix=".html") as file:
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={url}">')
        file.flush()
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(f"file://{file.name}")
        yield
