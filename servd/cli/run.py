"""`servd [--config F]` and `servd run`: the daemon in the foreground."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from servd.cli.source import config_option, load_config

if TYPE_CHECKING:
    from servd.config.load import Loaded


def run_config(config: str | None, *, development: bool = False) -> int:
    """Runs the configuration, as it is or for development; returns the daemon's exit status."""
    given = load_config(config).require()  # warnings are the daemon's to log
    from servd.discovery import Discovery

    discovery = Discovery()
    completed = discovery.begin(given, os.environ)
    from servd.admin.server import AdminServer
    from servd.config.development import developed
    from servd.config.load import load
    from servd.daemon.daemon import Launching, run

    def as_it_runs(loaded: Loaded) -> Loaded:
        return developed(loaded) if development else loaded

    def read() -> Loaded:
        return as_it_runs(discovery.complete(load(given.path, os.environ), os.environ))

    loaded = as_it_runs(discovery.finished(completed)).require()
    return run(
        Launching(loaded, read, AdminServer, watches_sources=development, give_up=discovery.give_up)
    )


@click.command("run")
@config_option
def command(config: str | None) -> int:
    """Run the configuration in the foreground (as servd without a command does)."""
    return run_config(config)
