"""`servd list`: lists the daemons of this user."""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Thread
from typing import Any

import click

from servd.cli.render.output import print_json, say
from servd.cli.render.service_facts import WELL, is_counted
from servd.control.client import AdminClient
from servd.core import instances
from servd.core.errors import ServdError
from servd.core.printable import visible

_PATIENCE_SECONDS = 5.0


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def command(as_json: bool) -> None:
    """List the running servd daemons of this user.

    Shows the configuration and the admin address of each.
    """
    found = _rows(instances.everywhere())
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


def _rows(daemons: Sequence[instances.Instance]) -> list[dict[str, Any]]:
    """Asks all at once: one that hangs keeps nobody from the others."""
    told: dict[int, str] = {}
    asked = [Thread(target=_ask, args=[each, told], daemon=True) for each in daemons]
    for each in asked:
        each.start()
    end = time.monotonic() + _PATIENCE_SECONDS
    for each in asked:
        each.join(max(0.0, end - time.monotonic()))
    return [
        {
            "pid": each.pid,
            "config": each.told.config,
            "admin": each.told.admin,
            "runtime_dir": each.folder,
            "services": told.get(each.pid, "no answer"),
        }
        for each in daemons
    ]


def _ask(daemon: instances.Instance, told: dict[int, str]) -> None:
    """Notes how many services of a daemon are ready, by its pid."""
    admin = daemon.told.admin
    if not admin.startswith("unix:"):
        told[daemon.pid] = "unknown" if admin else "starting"
        return
    try:
        found = AdminClient(admin[5:], own=True).services()
    except ServdError:
        told[daemon.pid] = "unknown"  # it is about to exit
        return
    counted = [each for each in found if is_counted(each)]
    ready = sum(each["state"] in WELL for each in counted)
    told[daemon.pid] = f"{ready} of {len(counted)} ready"
