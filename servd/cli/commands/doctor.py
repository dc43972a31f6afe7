"""`servd doctor`: what of this machine and this installation would trouble servd."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from servd.cli.render.output import colours, print_json
from servd.cli.source import config_option, load_config
from servd.core.errors import ConfigError, Exit

if TYPE_CHECKING:
    from servd.config.load import Loaded

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command("doctor")
@config_option
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def command(config: str | None, as_json: bool) -> int:
    """Look at what servd needs of this machine, and its configuration where there is one. Exits 1
    when something has to be mended.
    """
    from dataclasses import asdict

    from servd.host.doctor import Finding, examine

    loaded: Loaded | None = None
    try:
        loaded = load_config(config)
    except ConfigError as error:
        if config is not None:
            raise
        about = Finding("ok", f"no configuration was looked at: {error.diagnostics[0].message}")
    else:
        wrong = len(loaded.errors)
        about = Finding("ok", f"{loaded.path} is valid")
        if wrong:
            plural = "" if wrong == 1 else "s"
            about = Finding("problem", f"{loaded.path} has {wrong} mistake{plural}", "servd check")
    valid = loaded is not None and not loaded.errors
    findings = [*examine(loaded.config if loaded and valid else None, os.environ), about]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mark: str = finding.level
            if colours(sys.stdout):
                mark = click.style(mark, fg=_COLOURS[finding.level])
            click.echo(f"{mark}: {finding.what}")
            if finding.advice:
                click.echo(f"    {finding.advice}")
    return Exit.FAILED if any(f.level == "problem" for f in findings) else Exit.OK
