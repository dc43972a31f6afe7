"""`servd restart`: new workers for an unchanged definition, without losing a request."""

from __future__ import annotations

from urllib.parse import quote

import click

from servd.cli.admin_client import admin_client, admin_options
from servd.cli.outcome import show_outcome
from servd.errors import UsageError


@click.command("restart")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Every service.")
@admin_options
@click.option("--wait-drained", is_flag=True, help="Wait until everything old has ended.")
@click.option("--json", "as_json", is_flag=True, help="The outcome as JSON.")
def command(
    name: str | None,
    everything: bool,
    config: str | None,
    admin: str | None,
    wait_drained: bool,
    as_json: bool,
) -> int:
    """Replace the workers of service NAME (or of --all), to run new code."""
    if bool(name) == everything:
        raise UsageError("restart NAME, or restart --all")
    client = admin_client(config, admin)
    route = "/v1/restart" if everything else f"/v1/services/{quote(name or '', safe='')}/restart"
    return show_outcome(client.post(route, wait_drained=wait_drained), as_json=as_json)
