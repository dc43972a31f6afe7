"""`servd init`: writes a commented starter configuration, and an app if there is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from servd.cli.render.output import say, write_new
from servd.core.errors import ServdError, UsageError

if TYPE_CHECKING:
    from servd.config.find_app import FoundApp

_DEFAULT_FILES = ("servd.toml", "servd.yaml", "servd.yml")
_NEW_MODULES = ("main", "app", "servd_app")
"""Modules for an example app: the first one that is free."""


@click.command("init")
@click.argument("path", default="servd.toml", type=click.Path())
@click.option(
    "--app",
    metavar="MODULE:NAME",
    help="The app to serve, also FILE.py:NAME. Created if its file does not exist.  [default: the"
    " app in the folder, else a new one in main.py]",
)
@click.option("--force", is_flag=True, help="Overwrite an existing configuration.")
def command(path: str, app: str | None, force: bool) -> None:
    """Write a commented configuration, and an app if there is none.

    PATH is a file (default: servd.toml) whose extension sets the format, a folder, or - for stdout.
    An existing app is served as it is.
    """
    from servd.config.find import format_of
    from servd.config.schema import schema_file
    from servd.config.starter import LISTEN, starter

    if os.path.isdir(path):
        path = os.path.join(path, "servd.toml")
    folder = "." if path == "-" else os.path.dirname(path) or "."
    if path != "-" and not force:
        _refuse_a_second(path)
    chosen, others, module = _choose(folder, app)
    schema = Path(schema_file()).as_uri() if schema_file() else ""
    write_new(path, starter(chosen, format_of(path), schema), force=force)
    if path == "-":
        return
    if module:
        from servd.config.starter_app import starter_app

        text = starter_app(chosen.target.rpartition(":")[2])
        write_new(os.path.normpath(os.path.join(folder, module)), text, force=False)
    else:
        say(f"it serves {chosen.target}{_of(others)}")
    option = "" if path in _DEFAULT_FILES else f" --config {path}"
    say(f"Start it with `servd{option}`, then open http://{LISTEN}.")
    say(f"While you edit the code, `servd dev{option}` restarts it after each change.")


def _refuse_a_second(path: str) -> None:
    """Raises `ServdError` if servd would find two configurations in the folder."""
    folder, name = os.path.split(path)
    for other in _DEFAULT_FILES if name in _DEFAULT_FILES else ():
        found = os.path.join(folder, other)
        if other != name and os.path.exists(found):
            raise ServdError(f"{found} exists already. Choose another PATH, or use --force.")


def _choose(folder: str, app: str | None) -> tuple[FoundApp, list[FoundApp], str]:
    """Returns the app to serve, others that were found, and the module to write for it or ""."""
    from servd.config.find_app import FoundApp, find_apps

    if app is not None:
        return _given(folder, app), [], _new_file(folder, app)
    found = find_apps(folder)
    if found:
        return found[0], found[1:], ""
    module = next((m for m in _NEW_MODULES if not _exists(folder, m)), "")
    if not module:
        raise ServdError(f"no app found in {folder}. Name it with --app MODULE:NAME.")
    return FoundApp(f"{module}:app"), [], f"{module}.py"


def _given(folder: str, app: str) -> FoundApp:
    """Returns the app of `--app`, as what it is found to be. Raises `UsageError`."""
    from servd.config.find_app import FoundApp, find_apps

    source, _, name = app.rpartition(":")
    if not source or not name:
        raise UsageError(
            f'--app must be MODULE:NAME or FILE.py:NAME, such as main:app, not "{app}"'
        )
    same = [each for each in find_apps(folder) if each.target == app]
    return same[0] if same else FoundApp(app)


def _new_file(folder: str, app: str) -> str:
    """Returns the file to write for the app of `--app`, or "" if it can or need not be written."""
    from servd.config.find_module import missing_module

    source, _, name = app.rpartition(":")
    file = source if source.endswith(".py") else f"{source.replace('.', '/')}.py"
    exists = os.path.exists(os.path.join(folder, file))
    if source.endswith(".py"):
        is_new = not exists
    else:
        is_new = not exists and missing_module(source, os.path.abspath(folder)) == source
    fits = name.isidentifier() and os.path.isdir(os.path.join(folder, os.path.dirname(file)))
    return file if is_new and fits else ""


def _exists(folder: str, module: str) -> bool:
    path = os.path.join(folder, module)
    return os.path.exists(f"{path}.py") or os.path.isdir(path)


def _of(others: list[FoundApp]) -> str:
    names = ", ".join(each.target for each in others[:5])
    return f" (also found: {names}; choose with --app)" if others else ""
