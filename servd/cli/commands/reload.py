"""`servd reload`: applies the configuration file."""

from __future__ import annotations

import click

from servd.cli.act import ActOptions, act, act_options


@click.command("reload")
@act_options
@click.option("--roll", is_flag=True, help="Replace every service, though it did not change.")
def command(options: ActOptions, roll: bool) -> int:
    """Read the configuration and apply what differs; wait until it is done, or undone."""
    return act(options, "/v1/reload", roll=roll)
