"""`servd gpus`: shows the GPUs of this machine and who holds their memory."""

from __future__ import annotations

import os
import sys
from typing import Any
from urllib.parse import quote

import click

from servd.cli.admin_options import admin_client, admin_options
from servd.cli.render.output import print_json, print_lines, width_of
from servd.control.client import NoDaemonError
from servd.core.errors import ConfigError, Exit, ServdError
from servd.core.printable import visible


@click.group("gpus", invoke_without_command=True)
@admin_options
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def command(context: click.Context, config: str | None, admin: str | None, as_json: bool) -> int:
    """Show GPUs: memory, load, and which processes hold them.

    Asks the driver itself where no daemon runs. Exits 1 if the GPUs are unknown.
    """
    if context.invoked_subcommand is not None:
        return Exit.OK
    from servd.cli.render.gpu_table import gpu_lines

    found, by_daemon = _listed(config, admin)
    if as_json:
        print_json(found)
        return Exit.OK if found["error"] is None else Exit.FAILED
    shown = visible(found)
    if shown["error"] is not None:
        raise ServdError(f"the GPUs are unknown: {shown['error']}")
    print_lines(gpu_lines(shown, width_of(sys.stdout), by_daemon=by_daemon))
    return Exit.OK


@command.command("release")
@click.argument("gpu")
@admin_options
@click.pass_context
def release(context: click.Context, gpu: str, config: str | None, admin: str | None) -> int:
    """Let workers have a GPU again that had failed.

    GPU is its id or number.
    """
    before = context.parent.params if context.parent is not None else {}
    client = admin_client(config or before.get("config"), admin or before.get("admin"))
    answer = client.post(f"/v1/gpus/{quote(gpu, safe='')}/release")
    if not answer.good:
        raise client.unexpected(answer)
    return Exit.OK


def _listed(config: str | None, admin: str | None) -> tuple[dict[str, Any], bool]:
    """Returns the answer of the daemon, or without one that of the driver, and whether it is the
    daemon's. Raises `ServdError`.
    """
    try:
        client = admin_client(config, admin)
        answer = client.get("/v1/gpus")
    except NoDaemonError:
        if admin:
            raise
        return _asked(), False
    except ConfigError:
        if config:
            raise
        return _asked(), False
    if answer.good and isinstance(answer.body, dict) and "gpus" in answer.body:
        return answer.body, True
    raise client.unexpected(answer)


def _asked() -> dict[str, Any]:
    from dataclasses import asdict

    from servd.daemon.gpus.listing import gpus_status
    from servd.host.gpu_query import ask_gpus

    return asdict(gpus_status(ask_gpus(os.environ)))
