"""Imports Uvicorn without its command line, which a server does not use: with click, watchfiles and
multiprocessing a template would import for a tenth longer, and hold 1.9 MiB more.
"""

from __future__ import annotations

import asyncio  # noqa: F401  # before `ssl` is stood for: it asks more of it
import importlib
from types import ModuleType
from typing import Any

from servd.core.lean_import import late_ssl, stand_ins

__all__ = ["uvicorn"]


class _CommandLine(ModuleType):
    """Stands for `uvicorn.main`; what an app calls of it imports the real one."""

    @property
    def Server(self) -> Any:  # noqa: N802
        """The class, whose module can be imported now."""
        return importlib.import_module("uvicorn.server").Server

    @staticmethod
    def run(*arguments: Any, **options: Any) -> None:
        """Calls `uvicorn.run`."""
        importlib.import_module("uvicorn.main").run(*arguments, **options)

    @staticmethod
    def main(*arguments: Any, **options: Any) -> Any:
        """Calls the command `uvicorn`."""
        return importlib.import_module("uvicorn.main").main(*arguments, **options)


with stand_ins({"uvicorn.main": _CommandLine("uvicorn.main"), "ssl": late_ssl()}):
    import uvicorn
