"""`servd init`: writes a commented starter configuration."""

from __future__ import annotations

import click

from servd.cli.render.output import write_new


@click.command("init")
@click.argument("path", default="servd.toml", type=click.Path())
@click.option("--app", default="main:app", show_default=True, help="The app to serve.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(path: str, app: str, force: bool) -> None:
    """Write a commented configuration to PATH (servd.toml; - is stdout)."""
    from servd.config.dump import starter

    write_new(path, starter(app), force=force)
