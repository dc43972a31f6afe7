"""`servd dev`: runs a configuration in development mode."""

from __future__ import annotations

import click

from servd.cli.commands.run import run_config
from servd.cli.source import config_option


@click.command("dev")
@config_option
def command(config: str | None) -> int:
    """Run the configuration in development mode.

    Runs one worker per service with verbose, coloured logs, and restarts services when their source
    files change. If the new code fails to start, the previous workers keep running.
    """
    return run_config(config, development=True)
