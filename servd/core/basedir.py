"""Base directory of relative paths, fixed at start, since the folder can be moved or replaced."""

from __future__ import annotations

import os

_base_dir: str | None = None


def fix_base_dir() -> None:
    """Fixes the current working directory as the base directory for the life of this process."""
    global _base_dir
    _base_dir = os.getcwd()


def base_dir() -> str:
    """Returns the base directory: the fixed one, else the current working directory."""
    return os.getcwd() if _base_dir is None else _base_dir


def absolute(path: str) -> str:
    """Returns `path` as a normalized absolute path, relative to the base directory."""
    return os.path.normpath(path if os.path.isabs(path) else os.path.join(base_dir(), path))
