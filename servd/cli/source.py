"""Selects and loads the configuration of a command."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from servd.core.errors import UsageError

if TYPE_CHECKING:
    from servd.config.load import Loaded


def load_config(explicit: str | None) -> Loaded:
    """Loads the configuration of `config_path`, with its diagnostics. Raises `ConfigError`."""
    from servd.config.load import load

    return load(_chosen(explicit), os.environ)


def load_whole(explicit: str | None) -> Loaded:
    """Loads it with the declarations of BentoML code. Raises `ConfigError` if it is invalid."""
    from servd.bento.discovery import Discovery

    return Discovery().complete(load_config(explicit).require(), os.environ).require()


def config_path(explicit: str | None) -> str:
    """Returns the path of `--config` (before or after the command's name), or else the first
    default location. Raises `ConfigError` if no file exists, and `UsageError` for standard input,
    which cannot be read again.
    """
    path = _chosen(explicit)
    if path == "-":
        raise UsageError(
            "-c - works only with check, show, graph and doctor: this command needs a file"
        )
    return path


def _chosen(explicit: str | None) -> str:
    from servd.config.find import find_config

    context = click.get_current_context(silent=True)
    above = context.find_root().obj if context is not None else None
    return find_config(explicit or above, os.environ)


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--config`, for commands that read a configuration."""
    return click.option(
        "-c",
        "--config",
        metavar="PATH",
        type=click.Path(),
        help="Configuration file or folder, or - for stdin.  [default: $SERVD_CONFIG, then"
        " ./servd.toml or ./servd.yaml]",
    )(command)
