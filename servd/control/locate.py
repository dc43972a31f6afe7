"""Finding the daemon of a configuration without reading all of it: `servd status` should not take
longer than the daemon needs to answer.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import Any

UNIT_SOCKET = "/run/servd/admin.sock"
"""Where the shipped unit's daemon, whose configuration is in /etc/servd, has its runtime folder:
systemd tells the daemon, and nobody tells a shell."""

_ELSEWHERE = {"metrics", "group"}
"""Keys of `[admin]` that say nothing about where the API is."""

_FOLDER = "SERVD_DAEMON__RUNTIME_DIR"


def quick_socket(path: str, environ: Mapping[str, str]) -> str | None:
    """The admin socket of the daemon that runs the configuration at `path`, where that is one TOML
    file that says nothing about it; None where it takes the whole configuration to know.
    """
    if not path.endswith(".toml") or any(_says_where(name) for name in environ):
        return None
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, ValueError):  # whoever reads all of it says what is wrong
        return None
    if _says_something(table):
        return None
    folder = environ.get(_FOLDER)
    if folder is None:
        from servd.daemon.runtime_dir import default_runtime_dir

        folder = default_runtime_dir(path, environ, is_root=os.geteuid() == 0)
    elif not folder.startswith("/") or "$" in folder:
        return None
    return os.path.join(folder, "admin.sock")


def _says_where(variable: str) -> bool:
    """Whether a variable of the environment overrides what the short way does not look at."""
    name = variable.upper()
    return name.startswith("SERVD_ADMIN__") or (name == _FOLDER and variable != _FOLDER)


def _says_something(table: Mapping[str, Any]) -> bool:
    """Whether anything may be said, here or elsewhere, about where the daemon is."""
    daemon, admin = table.get("daemon", {}), table.get("admin", {})
    if "include" in table or not isinstance(daemon, dict) or not isinstance(admin, dict):
        return True
    return "runtime_dir" in daemon or not admin.keys() <= _ELSEWHERE
