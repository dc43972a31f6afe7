"""`servd reload`: makes what runs equal to the file."""

from __future__ import annotations

import click

from servd.cli.admin_client import admin_client, admin_options
from servd.cli.outcome import show_outcome


@click.command("reload")
@admin_options
@click.option("--roll", is_flag=True, help="Replace every service, though it did not change.")
@click.option("--wait-drained", is_flag=True, help="Wait until everything old has ended.")
@click.option("--json", "as_json", is_flag=True, help="The outcome as JSON.")
def command(
    config: str | None, admin: str | None, roll: bool, wait_drained: bool, as_json: bool
) -> int:
    """Read the configuration and apply what differs; wait until it is done, or undone."""
    client = admin_client(config, admin)
    answer = client.post("/v1/reload", roll=roll, wait_drained=wait_drained)
    return show_outcome(answer, as_json=as_json)
