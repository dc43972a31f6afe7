"""`servd doctor`: finds problems of this machine and this installation."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from servd.cli.render.output import colours, print_json
from servd.cli.source import config_option, load_config
from servd.core.errors import ConfigError, Exit

if TYPE_CHECKING:
    from servd.config.model import Config
    from servd.host.doctor import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command("doctor")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(config: str | None, as_json: bool) -> int:
    """Check the machine, the installation and the configuration.

    Exits 1 if it finds a problem.
    """
    from dataclasses import asdict

    from servd.host.doctor import examine

    valid, about = _examine_config(config)
    findings = [*examine(valid, os.environ), *about]
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


def _examine_config(path: str | None) -> tuple[Config | None, list[Finding]]:
    """Returns a valid configuration, and findings. Raises `ConfigError` if `path` has none."""
    from servd.host.doctor import Finding

    try:
        loaded = load_config(path)
    except ConfigError as error:
        if path is not None:
            raise
        message = error.diagnostics[0].message
        return None, [Finding("ok", f"no configuration checked: {message}")]
    found = [Finding("warning", w.message, w.hint) for w in loaded.warnings]
    if not loaded.errors:
        return loaded.config, [Finding("ok", f"{loaded.path} is valid"), *found]
    count = len(loaded.errors)
    what = f"{loaded.path} has {count} error{'' if count == 1 else 's'}"
    return None, [Finding("problem", what, "run `servd check`"), *found]
