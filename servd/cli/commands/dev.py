"""`servd dev`: runs a configuration in development mode."""

from __future__ import annotations

import click

from servd.cli.commands.run import run_config
from servd.cli.source import config_option


@click.command("dev")
@config_option
def command(config: str | None) -> int:
    """Run the configuration for development: one worker a service, verbose logs in colour, and
    whatever changes in the sources is started anew (what ran goes on where that fails).
    """
    return run_config(config, development=True)
