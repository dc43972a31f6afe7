"""What the exporters share: the configuration with its plan, and the report of what is lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from servd.cli.render.output import say
from servd.cli.source import config_path, load_config
from servd.core.errors import ServdError

if TYPE_CHECKING:
    from servd.config.load import Loaded
    from servd.core.diagnostics import Diagnostic
    from servd.export.containers.options import ExportSource


class NotCarriedError(ServdError):
    """Something is not carried over that must be."""


def export_source(config: str | None) -> ExportSource:
    """Loads a configuration for an export. Raises `ConfigError` if it is invalid."""
    from servd.bento.discovery import Discovery
    from servd.config.load import folder_of
    from servd.export.containers.options import ExportSource
    from servd.host.facts import inspect_host
    from servd.plan.build import build_loaded

    path = config_path(config)
    folder = os.path.abspath(path) if os.path.isdir(path) else folder_of(path)
    written = _elsewhere(load_config(config)).require()
    loaded = _elsewhere(Discovery().complete(written, os.environ)).require()
    host = inspect_host(loaded.config, os.environ)
    return ExportSource(written, loaded, build_loaded(loaded, host, "/nonexistent"), host, folder)


_OF_THIS_MACHINE = ("file", "tls", "user")
"""Codes of mistakes in what surrounds a configuration, which another machine may have."""


def _elsewhere(loaded: Loaded) -> Loaded:
    """Returns what is loaded with warnings about what is missing on this machine. An `env_file`
    must be there: its names are needed.
    """
    diagnostics = tuple(
        replace(each, severity="warning")
        if each.code in _OF_THIS_MACHINE and "env_file" not in each.path
        else each
        for each in loaded.diagnostics
    )
    return replace(loaded, diagnostics=diagnostics)


def report(source: ExportSource, found: Sequence[Diagnostic], *, strict: bool) -> None:
    """Prints what is not carried over. Raises `NotCarriedError` if that may not be."""
    from servd.core.diagnostics import errors_in, in_order, render

    missing = [each for each in source.loaded.warnings if each.code in _OF_THIS_MACHINE]
    for each in in_order([*missing, *found]):
        say(render(each, source.loaded.texts))
    wrong = list(found) if strict else errors_in(found)
    if wrong:
        keys = "1 key is" if len(wrong) == 1 else f"{len(wrong)} keys are"
        raise NotCarriedError(f"nothing was written: {keys} not carried over")


def strict_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--strict`."""
    return click.option(
        "--strict", is_flag=True, help="Fail if anything is not carried over, and write nothing."
    )(command)


def write_files(folder: str, files: Mapping[str, str]) -> None:
    """Writes files into a folder, which is made, and prints their paths."""
    os.makedirs(folder, exist_ok=True)
    for name, text in files.items():
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as written:
            written.write(text)
        click.echo(path)
