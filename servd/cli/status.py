"""`servd status`: what runs."""

from __future__ import annotations

from typing import Any

import click

from servd.cli.admin_client import admin_client, admin_options
from servd.cli.output import in_brief, print_json


@click.command("status")
@admin_options
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def command(config: str | None, admin: str | None, as_json: bool) -> None:
    """Show what runs: services, their states and workers, and the last reload."""
    status = admin_client(config, admin).get("/v1/status").body
    if as_json:
        print_json(status)
        return
    click.echo("\n".join(lines(status)))


def lines(status: dict[str, Any]) -> list[str]:
    """A table of the services, with what is wrong below each, and the last reload."""
    config = status["config"]
    daemon = f"servd {status['version']}  {status['state']}  pid {status['pid']}"
    shown = [f"{daemon}  {config['path']} (generation {config['generation']})", ""]
    width = max([len(s["name"]) for s in status["services"]] + [len("SERVICE")])
    shown.append(f"{'SERVICE':<{width}}  {'STATE':<9}  {'WORKERS':<7}  {'GEN':>3}  LISTEN")
    for service in status["services"]:
        workers = service["workers"]
        where = ", ".join(service["listen"]) or "internal"
        shown.append(
            f"{service['name']:<{width}}  {service['state']:<9}"
            f"  {workers['ready']:>3}/{workers['desired']:<3}"
            f"  {service['generation']:>3}  {where}"
        )
        if service["error"]:
            shown.append(f"{'':<{width}}  {service['error']}")
        shown += [
            f"{'':<{width}}  generation {drain['generation']} drains: {drain['waiting_for']}"
            for drain in service["draining"]
        ]
    return shown + _last_reload(status["last_reload"])


def _last_reload(last: dict[str, Any] | None) -> list[str]:
    if last is None:
        return []
    changes = in_brief(last["changes"])
    shown = ["", f"last reload: {last['outcome']} at {last['at'][:19]}Z  {changes}".rstrip()]
    shown += [f"  {detail}" for detail in last["details"] or filter(None, [last["error"]])]
    return shown + [f"  {key} waits for a restart of servd" for key in last["restart_needed"]]
