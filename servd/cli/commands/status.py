"""`servd status`: shows services and workers."""

from __future__ import annotations

import sys
import time

import click

from servd.cli.admin_options import admin_client, admin_options
from servd.cli.commands.completion import service_names
from servd.cli.render.output import colours, moves, print_json
from servd.cli.render.status_table import detail_lines, status_lines
from servd.core.printable import visible

WATCH_INTERVAL_SECONDS = 1.0


@click.command("status")
@click.argument("name", required=False, shell_complete=service_names)
@admin_options
@click.option("--watch", "-w", is_flag=True, help="Again every second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def command(
    name: str | None, config: str | None, admin: str | None, watch: bool, as_json: bool
) -> None:
    """Show what runs: services (or NAME with its workers), their states, and the last reload."""
    client = admin_client(config, admin)
    try:
        while True:
            status = client.status() if name is None else client.services([name])[0]
            if as_json:
                print_json(status)
            else:
                status = visible(status)
                lines = status_lines if name is None else detail_lines
                text = "\n".join(lines(status, colour=colours(sys.stdout)))
                click.echo(f"\x1b[H\x1b[J{text}" if watch and moves(sys.stdout) else text)
            if not watch:
                return
            time.sleep(WATCH_INTERVAL_SECONDS)
    except KeyboardInterrupt:
        return
