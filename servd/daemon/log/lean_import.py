"""Imports structlog without the packages that it colours tracebacks with."""

from __future__ import annotations

import importlib
import sys

_UNUSED = ("rich", "better_exceptions")


def import_structlog() -> None:
    """Imports it without rich and better_exceptions: with them it takes a sixth of the daemon's
    start, and `log.sink` formats exceptions without them. They can still be imported later.
    """
    absent = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: an ImportError
    try:
        importlib.import_module("structlog")
    finally:
        for name in absent:
            del sys.modules[name]
