"""Which configuration a command is about."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from servd.config.load import Loaded


def load_config(explicit: str | None) -> Loaded:
    """The configuration that `--config` (before or after the command's name) or the usual places
    name, with whatever is wrong in it.

    Raises `ConfigError` when there is none.
    """
    from servd.config.find import find_config
    from servd.config.load import load

    context = click.get_current_context(silent=True)
    above = context.find_root().obj if context is not None else None
    return load(find_config(explicit or above, os.environ), os.environ)
