"""`servd logs`: shows the log of the services and the daemon."""

from __future__ import annotations

from typing import Any

import click

from servd.cli.follow import follow_options, show_lines


@click.command("logs")
@follow_options
def command(**options: Any) -> None:
    """Show recent log lines of services and the daemon.

    With NAME, shows only those services.
    """
    show_lines("/v1/logs", **options)
