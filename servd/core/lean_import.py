"""Imports a library without the modules that it imports and that are not used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def stand_ins(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Answers imports of the names in `modules` with these modules (None: an ImportError) within
    the block, unless the real ones are loaded. Afterwards the real ones can be imported.
    """
    absent = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(absent)  # type: ignore[arg-type]  # None is allowed
    try:
        yield
    finally:
        for name, module in absent.items():
            if sys.modules.get(name, module) is module:
                sys.modules.pop(name, None)


class LateModule(ModuleType):
    """Stands for a module that is imported when something of it is used. `known` are values that
    can be told without it.
    """

    def __init__(self, name: str, **known: Any) -> None:
        super().__init__(name)
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:  # within `stand_ins`
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _LateSsl(LateModule):
    def __getattr__(self, name: str) -> Any:
        if name == "SSLSocket" and self.__name__ not in sys.modules:
            return ()  # asyncio asks of each socket whether it is one: there is none yet
        return super().__getattr__(name)


def late_ssl() -> LateModule:
    """Returns a stand-in for `ssl`, with the defaults that signatures show."""
    return _LateSsl("ssl", CERT_NONE=0, PROTOCOL_TLS_SERVER=17)
