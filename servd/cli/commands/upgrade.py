"""`servd upgrade`: replaces the running daemon without losing a request."""

from __future__ import annotations

import time
from dataclasses import replace

import click

from servd.cli.act import ActOptions, act_options, watched
from servd.cli.admin_options import admin_client
from servd.cli.render.output import print_json, say
from servd.control.client import AdminClient, NoDaemonError
from servd.core.errors import Exit, ServdError

_POLL_SECONDS = 0.1


@click.command("upgrade")
@act_options
def command(options: ActOptions) -> int:
    """Replace the running servd without losing a request.

    Starts the installed version of servd and Python, which takes over the sockets. If it fails to
    start, the old servd keeps running.
    """
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    client = admin_client(options.config, options.admin)
    answer = watched(client, lambda: client.post("/v1/upgrade"), replace(options, quiet=True))
    if answer is None:
        return Exit.FAILED
    body = answer.body if isinstance(answer.body, dict) else {}
    if not body or (answer.status == 404 and "outcome" not in body):
        raise ServdError("the running servd is too old for an upgrade: restart it")
    drained = answer.good and (not options.wait_drained or _drained(client, deadline))
    if options.as_json:
        print_json(body)
    elif answer.good:
        seconds = body["seconds"]
        click.echo(f"replaced in {seconds:.1f} s: servd {body['version']}, pid {body['pid']}")
        if not drained:
            say(f"not drained after {options.timeout:g} s; it continues (see `servd status`)")
    else:
        say(f"{body.get('title', 'failed')}: {body.get('detail', '')}")
        for line in body.get("last_lines", ()):
            say(f"  | {line}")
    return Exit.OK if drained else Exit.FAILED


def _drained(client: AdminClient, deadline: float | None) -> bool:
    """Waits until the previous daemon has exited. Returns False at the deadline."""
    while deadline is None or time.monotonic() < deadline:
        try:
            if client.status().get("predecessor") is None:
                return True
        except NoDaemonError:
            pass  # during the takeover
        time.sleep(_POLL_SECONDS)
    return False
