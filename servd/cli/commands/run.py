"""`servd [--config F]` and `servd run`: run the daemon in the foreground."""

from __future__ import annotations

import functools
import os

import click

from servd.cli.launch import LaunchOptions, launch
from servd.cli.source import config_option, config_path


def run_config(config: str | None, *, development: bool = False) -> int:
    """Runs the configuration, optionally in development mode; returns the daemon's exit status."""
    from servd.config.load import load

    @functools.cache
    def path() -> str:
        return config_path(config)

    return launch(LaunchOptions(lambda: load(path(), os.environ), development, development))


@click.command("run")
@config_option
def command(config: str | None) -> int:
    """Run the configuration in the foreground.

    `servd` without a command does the same.
    """
    return run_config(config)
