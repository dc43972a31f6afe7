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
@seconds_option("Wait no longer: 30s, 5m. The shutdown goes on.  [default: until it is over]")
def command(config: str | None, admin: str | None, timeout: float | None) -> int:
    """Stop the daemon and all its services gracefully, as SIGTERM does, and wait for the end."""
    client = admin_client(config, admin)
    if "://" in client.endpoint and urlsplit(client.endpoint).hostname not in _HERE:
        raise UsageError("only a daemon on this machine can be shut down: it is sent a signal")
    pid = client.status()["pid"]
    started = started_at(pid)
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        raise ServdError(f"the daemon (pid {pid}) belongs to another user") from None
    except ProcessLookupError:
        pass  # it has ended by itself
    while started is not None and started_at(pid) == started:
        if deadline is not None and time.monotonic() >= deadline:
            say(f"still stopping after {timeout:g} s: it goes on")
            return Exit.FAILED
        time.sleep(_POLL_SECONDS)
    click.echo(f"stopped (pid {pid})")
    return Exit.OK
