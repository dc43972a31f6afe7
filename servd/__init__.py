"""servd: one file describes your services, and the daemon keeps what runs equal to it.

Names are resolved when first used, so that importing servd costs an app nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servd._version import __version__

if TYPE_CHECKING:
    from servd.api import load
    from servd.client import depends, depends_sync, loading
    from servd.config.model import Config
    from servd.core.errors import ConfigError, DependencyError, ServdError, StartError
    from servd.core.unwell import unwell
    from servd.embed import Server, serve

__all__ = [
    "Config",
    "ConfigError",
    "DependencyError",
    "ServdError",
    "Server",
    "StartError",
    "__version__",
    "depends",
    "depends_sync",
    "load",
    "loading",
    "serve",
    "unwell",
]

_HOME = {
    "Config": "servd.config.model",
    "ConfigError": "servd.core.errors",
    "DependencyError": "servd.core.errors",
    "ServdError": "servd.core.errors",
    "Server": "servd.embed",
    "StartError": "servd.core.errors",
    "depends": "servd.client",
    "depends_sync": "servd.client",
    "load": "servd.api",
    "loading": "servd.client.loading",
    "serve": "servd.embed",
    "unwell": "servd.core.unwell",
}


def __getattr__(name: str) -> Any:
    """Imports the home of a public name when it is first asked for."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'servd' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
