"""`servd init`: writes a commented starter configuration."""

from __future__ import annotations

import os

import click

from servd.cli.render.output import write_new


@click.command("init")
@click.argument("path", default="servd.toml", type=click.Path())
@click.option(
    "--app", default="main:app", show_default=True, metavar="MODULE:NAME", help="The app to serve."
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(path: str, app: str, force: bool) -> None:
    """Write a commented starter configuration.

    PATH is a file (default: servd.toml) whose extension sets the format, a folder, or - for stdout.
    """
    from servd.config.find import format_of
    from servd.config.starter import starter

    if os.path.isdir(path):
        path = os.path.join(path, "servd.toml")
    write_new(path, starter(app, format_of(path)), force=force)
