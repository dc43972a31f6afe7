"""`servd check`: validates a configuration, and with --imports all its apps."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from typing import TYPE_CHECKING

import click

from servd.cli.render.output import diagnostic_json, print_json, say, show_diagnostics
from servd.cli.source import config_option, load_config
from servd.core.errors import ConfigError, Exit

if TYPE_CHECKING:
    from servd.config.load import Loaded
    from servd.plan.model import Plan


@click.command("check")
@config_option
@click.option("--imports", is_flag=True, help="Also import each app, in a separate process.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(config: str | None, imports: bool, as_json: bool) -> int:
    """Validate the configuration and show all errors.

    Exits 78 if it is invalid, and 1 if an import fails.
    """
    try:
        loaded = load_config(config)
    except ConfigError as error:
        if not as_json:
            raise
        shown = [diagnostic_json(d) for d in error.diagnostics]
        print_json({"valid": False, "diagnostics": shown})
        return Exit.CONFIG
    loaded, failures = _checked(loaded, imports=imports)
    if as_json:
        valid = not loaded.errors and not failures
        shown = [diagnostic_json(d) for d in loaded.diagnostics]
        print_json({"valid": valid, "diagnostics": shown, "imports": failures})
    else:
        _show(loaded, failures, imports=imports)
    if loaded.errors:
        return Exit.CONFIG
    return Exit.FAILED if failures else Exit.OK


def _checked(loaded: Loaded, *, imports: bool) -> tuple[Loaded, dict[str, str]]:
    """Adds the diagnostics of code and machine; returns the failed imports by service too."""
    failures: dict[str, str] = {}
    if not loaded.errors:
        from servd.bento.discovery import Discovery
        from servd.config.check_code import check_code
        from servd.config.load import LoadError
        from servd.host.facts import inspect_host
        from servd.host.gpus import equip_at_start
        from servd.plan.build import build_loaded

        if imports:
            loaded = Discovery().complete(loaded, os.environ)
        else:
            found = check_code(loaded)
            loaded = dataclasses.replace(loaded, diagnostics=(*loaded.diagnostics, *found))
        plan = build_loaded(loaded, inspect_host(loaded.config, os.environ), "/nonexistent")
        try:
            gpus = equip_at_start(loaded, plan, os.environ)[1]
            loaded = dataclasses.replace(loaded, diagnostics=(*loaded.diagnostics, *gpus))
        except LoadError as error:
            loaded = error.loaded
        failures = _imports(loaded, plan) if imports and not loaded.errors else failures
    # warnings about code that cannot be imported are shown as failures
    kept = tuple(d for d in loaded.diagnostics if d.code != "code" or d.severity == "error")
    return dataclasses.replace(loaded, diagnostics=kept), failures


def _show(loaded: Loaded, failures: dict[str, str], *, imports: bool) -> None:
    show_diagnostics(loaded)
    for name, text in failures.items():
        say(f"services.{name}: cannot import the app\n{text}")
    if loaded.errors or failures:
        return
    names = ", ".join(sorted(loaded.config.services)) or "no services"
    click.echo(f"{loaded.path} is valid: {names}")
    skipped = [name for name, s in loaded.config.services.items() if s.bento and not imports]
    if skipped:
        say(f"The code of {', '.join(skipped)} was not inspected: use --imports")


def _imports(loaded: Loaded, plan: Plan) -> dict[str, str]:
    """Returns the output of each failed import, by service. (BentoML code was queried before.)"""
    failures = {
        d.path.split(".")[1]: d.trace or d.message for d in loaded.warnings if d.code == "code"
    }
    for service in plan.services:
        if service.app is None or service.part is not None:
            continue
        argv = [*service.argv_of("servd.worker.try_import"), service.app.app]
        argv += [service.directory, "factory" if service.app.factory else "", service.app.interface]
        try:
            done = subprocess.run(
                argv,
                cwd=service.directory,
                env=dict(service.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=service.startup,
            )
        except subprocess.TimeoutExpired:
            failures[service.name] = f"the import took longer than {service.startup:g} s"
            continue
        if done.returncode != 0:
            failures[service.name] = (done.stderr or done.stdout).rstrip()
    return failures
