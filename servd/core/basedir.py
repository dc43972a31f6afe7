"""The folder that relative paths start from. For a daemon it is a path, that of the start, and not
the folder that was there then: that may be moved, deleted or replaced while the daemon runs.
"""

from __future__ import annotations

import os

_base_dir: str | None = None


def fix_base_dir() -> None:
    """Relative paths start from the present working directory for as long as this process lives."""
    global _base_dir
    _base_dir = os.getcwd()


def base_dir() -> str:
    """Where relative paths start."""
    return os.getcwd() if _base_dir is None else _base_dir


def absolute(path: str) -> str:
    """`path` from the root."""
    return os.path.normpath(path if os.path.isabs(path) else os.path.join(base_dir(), path))
