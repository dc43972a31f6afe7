"""The folder that relative paths start from. For a daemon it is a path, that of the start, and not
the folder that was there then: that may be moved, deleted or replaced while the daemon runs.
"""

from __future__ import annotations

import os

_home: str | None = None


def stay() -> None:
    """Relative paths start from the present working directory for as long as this process lives."""
    global _home
    _home = os.getcwd()


def home() -> str:
    """Where relative paths start."""
    return os.getcwd() if _home is None else _home


def absolute(path: str) -> str:
    """`path` from the root."""
    return os.path.normpath(path if os.path.isabs(path) else os.path.join(home(), path))
