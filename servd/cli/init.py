"""`servd init`: a commented starter configuration."""

from __future__ import annotations

import os

import click

from servd.cli.output import say
from servd.errors import Exit, ServdError


@click.command("init")
@click.argument("path", default="servd.toml", type=click.Path())
@click.option("--app", default="main:app", show_default=True, help="The app to serve.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(path: str, app: str, force: bool) -> int:
    """Write a commented configuration to PATH (servd.toml; - is stdout)."""
    from servd.config.dump import starter

    text = starter(app)
    if path == "-":
        click.echo(text, nl=False)
        return Exit.OK
    if os.path.exists(path) and not force:
        raise ServdError(f"{path} is there already: --force overwrites it")
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ServdError(f"cannot write {path}: {error.strerror}") from None
    say(f"wrote {path}: now `servd check`, then `servd`")
    return Exit.OK
