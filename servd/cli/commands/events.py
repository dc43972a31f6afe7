"""`servd events`: shows the events of services and workers."""

from __future__ import annotations

from typing import Any

import click

from servd.cli.follow import follow_options, show_lines


@click.command("events")
@follow_options
def command(**options: Any) -> None:
    """Show recent events of services, workers and reloads."""
    show_lines("/v1/events", **options)
