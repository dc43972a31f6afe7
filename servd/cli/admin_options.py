"""Selects the daemon that a command talks to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from servd.cli.render.output import say
from servd.cli.source import config_option, config_path
from servd.control.client import AdminClient


def admin_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--config` and `--admin`, for commands that talk to the daemon."""
    option = click.option(
        "--admin",
        metavar="ADDRESS",
        envvar="SERVD_ADMIN",
        help="Admin API address: unix:PATH or http://HOST:PORT.  [default: $SERVD_ADMIN, then the"
        " configuration]",
    )
    return config_option(option(command))


def admin_client(config: str | None, admin: str | None) -> AdminClient:
    """Returns the client for the daemon that `--admin` or the configuration names. Raises
    `ConfigError` without a configuration, `UsageError` for an invalid address, and `ServdError` if
    the API is disabled. Prints a note if the daemon listens elsewhere than the file says.
    """
    from servd.control.locate import client_at, client_of

    if admin:
        return client_at(admin)
    found = client_of(config_path(config))
    if found.note:
        say(found.note)
    return found.client
