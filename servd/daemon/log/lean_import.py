"""Imports structlog without the packages that it uses where they are installed."""

from __future__ import annotations

import importlib

from servd.core.lean_import import stand_ins


def import_structlog() -> None:
    """Imports it without rich and better_exceptions: with them it takes a sixth of the daemon's
    start, and `log.sink` formats exceptions without them. It uses greenlet for what servd does not
    use, and colorama on Windows. All of them can still be imported later.
    """
    unused = ("rich", "better_exceptions", "greenlet", "colorama")
    with stand_ins(dict.fromkeys(unused)):
        importlib.import_module("structlog")
