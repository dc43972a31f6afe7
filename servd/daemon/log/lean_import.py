"""Imports structlog without the packages that it colours tracebacks with."""

from __future__ import annotations

import importlib

from servd.core.lean_import import stand_ins


def import_structlog() -> None:
    """Imports it without rich and better_exceptions: with them it takes a sixth of the daemon's
    start, and `log.sink` formats exceptions without them. They can still be imported later.
    """
    with stand_ins({"rich": None, "better_exceptions": None}):
        importlib.import_module("structlog")
