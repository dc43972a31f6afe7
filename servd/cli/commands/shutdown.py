"""`servd shutdown`: stops the daemon and all its services."""

from __future__ import annotations

import os
import signal
import time
from urllib.parse import urlsplit

import click

from servd.cli.act import seconds_option
from servd.cli.admin_options import admin_client, admin_options
from servd.cli.render.output import say
from servd.core.errors import Exit, ServdError, UsageError
from servd.core.processes import started_at

_POLL_SECONDS = 0.05
_HERE = ("127.0.0.1", "::1", "localhost")


@click.command("shutdown")
@admin_options
@seconds_option(
    "Stop waiting after this time, such as 30s; the shutdown continues.  [default: no limit]"
)
def command(config: str | None, admin: str | None, timeout: float | None) -> int:
    """Stop the daemon and all its services gracefully.

    Sends SIGTERM to the daemon and waits until it exits.
    """
    client = admin_client(config, admin)
    if "://" in client.endpoint and urlsplit(client.endpoint).hostname not in _HERE:
        raise UsageError("cannot shut down a daemon on another machine (shutdown sends a signal)")
    pid = client.status()["pid"]
    started = started_at(pid)
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        raise ServdError(
            f"cannot stop the daemon (pid {pid}): it belongs to another user"
        ) from None
    except ProcessLookupError:
        pass  # it has already exited
    while started is not None and started_at(pid) == started:
        if deadline is not None and time.monotonic() >= deadline:
            say(f"still stopping after {timeout:g} s; the shutdown continues")
            return Exit.FAILED
        time.sleep(_POLL_SECONDS)
    click.echo(f"stopped (pid {pid})")
    return Exit.OK
