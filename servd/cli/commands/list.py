"""`servd list`: lists the daemons of this user."""

from __future__ import annotations

from typing import Any

import click

from servd.cli.render.output import print_json, say
from servd.cli.render.service_facts import WELL, is_counted
from servd.control.client import AdminClient
from servd.core import instances
from servd.core.errors import ServdError
from servd.core.printable import visible


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def command(as_json: bool) -> None:
    """List the running servd daemons of this user.

    Shows the configuration and the admin address of each.
    """
    found = [_row(each) for each in instances.everywhere()]
    if as_json:
        print_json(found)
        return
    if not found:
        say("servd is not running for this user")
        return
    click.echo(f"{'PID':>7}  {'SERVICES':<14}  {'CONFIG':<40}  ADMIN")
    for row in visible(found):
        config = row["config"] or "-"
        click.echo(f"{row['pid']:>7}  {row['services']:<14}  {config:<40}  {row['admin']}")


def _row(daemon: instances.Instance) -> dict[str, Any]:
    admin = daemon.told.admin
    services = "starting" if not admin else "unknown"
    if admin.startswith("unix:"):
        try:
            counted = [
                each for each in AdminClient(admin[5:], own=True).services() if is_counted(each)
            ]
            ready = sum(each["state"] in WELL for each in counted)
            services = f"{ready} of {len(counted)} ready"
        except ServdError:
            pass  # it is about to exit
    return {
        "pid": daemon.pid,
        "config": daemon.told.config,
        "admin": admin,
        "runtime_dir": daemon.folder,
        "services": services,
    }
