"""`servd export systemd`: writes units."""

from __future__ import annotations

import os
import re
import sys

import click

from servd.cli.export_source import write_files
from servd.cli.source import config_option, config_path, load_whole
from servd.core.errors import UsageError


@click.command("systemd")
@config_option
@click.option(
    "--user", default="servd", show_default=True, metavar="USER", help="User of the unit."
)
@click.option(
    "--name", default="servd", show_default=True, metavar="NAME", help="Name of the unit."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Write the files to this folder instead of stdout.",
)
def command(config: str | None, user: str, name: str, output: str | None) -> None:
    """Write systemd units for the configuration."""
    for option, given in (("--name", name), ("--user", user)):
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*", given):
            raise UsageError(f"{option} {given}: expected letters, digits and _ . @ -")
    path = os.path.abspath(config_path(config))
    loaded = load_whole(config)
    from servd.export.systemd import Installation, units
    from servd.host.facts import inspect_host
    from servd.plan.build import build_loaded

    plan = build_loaded(loaded, inspect_host(loaded.config, os.environ), "/nonexistent")
    program = os.path.join(os.path.dirname(sys.executable), "servd")
    started = (program,) if os.path.exists(program) else (sys.executable, "-m", "servd")
    installed = Installation(started, path, os.path.realpath(sys.executable), user, name)
    files = units(loaded.config, plan, installed)
    if output is None:
        for file, text in files.items():
            click.echo(f"# {file}\n{text}", nl=len(files) > 1)
        return
    write_files(output, files)
