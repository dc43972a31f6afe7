"""Which daemon a command talks to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from servd.cli.source import config_option, config_path
from servd.control.client import AdminClient


def admin_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config` and `--admin`, as every command has them that talks to the daemon."""
    option = click.option(
        "--admin",
        metavar="ADDRESS",
        envvar="SERVD_ADMIN",
        help="unix:PATH, or http://HOST:PORT; default: what the configuration says.",
    )
    return config_option(option(command))


def admin_client(config: str | None, admin: str | None) -> AdminClient:
    """The client for the daemon that `--admin` or the configuration names.

    Raises `ConfigError` where there is no configuration, `UsageError` for what is no address, and
    `ServdError` where the configuration says that there is no API.
    """
    from servd.control.locate import client_at, client_of

    return client_at(admin) if admin else client_of(config_path(config))
