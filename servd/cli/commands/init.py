"""`servd init`: writes a commented starter configuration."""

from __future__ import annotations

import os

import click

from servd.cli.render.output import write_new


@click.command("init")
@click.argument("path", default="servd.toml", type=click.Path())
@click.option("--app", default="main:app", show_default=True, help="The app to serve.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(path: str, app: str, force: bool) -> None:
    """Write a commented configuration to PATH in the format that its name says (servd.toml; in a
    folder too; - is stdout).
    """
    from servd.config.find import format_of
    from servd.config.starter import starter

    if os.path.isdir(path):
        path = os.path.join(path, "servd.toml")
    write_new(path, starter(app, format_of(path)), force=force)
