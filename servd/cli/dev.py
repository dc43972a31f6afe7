"""`servd dev`: a whole configuration in development mode."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from servd.cli.source import config_option, load_config

if TYPE_CHECKING:
    from servd.config.load import Loaded


@click.command("dev")
@config_option
def command(config: str | None) -> int:
    """Run the configuration for development: one worker a service, verbose logs in colour, and
    whatever changes in the sources is started anew (what ran goes on where that fails).
    """
    given = load_config(config).require()
    from servd.discovery import Discovery

    discovery = Discovery()
    completed = discovery.begin(given, os.environ)
    from servd.admin.server import AdminServer
    from servd.config.development import developed
    from servd.config.load import load
    from servd.daemon.daemon import Launching, run

    def read() -> Loaded:
        return developed(discovery.complete(load(given.path, os.environ), os.environ))

    loaded = developed(discovery.finished(completed)).require()
    return run(
        Launching(loaded, read, AdminServer, watches_sources=True, give_up=discovery.give_up)
    )
