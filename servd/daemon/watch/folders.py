"""Finds the folders whose files can be sources."""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Callable

_MARKS = frozenset({"pyvenv.cfg", "CACHEDIR.TAG"})
"""Files that mark a virtual environment, and a cache: nobody edits what is there."""

_NEVER = frozenset({"__pycache__", "node_modules", "site-packages"})

_MOST_FOLDERS = 5000
"""A larger tree is watched only in part, the upper folders first: the kernel limits watches."""


def folders_below(root: str, is_left_out: Callable[[str], bool]) -> list[str]:
    """Returns `root` and the folders below it, without those that are left out."""
    found: list[str] = []
    waiting = collections.deque([root])
    while waiting and len(found) < _MOST_FOLDERS:
        folder = waiting.popleft()
        entries: list[os.DirEntry[str]] = []
        with contextlib.suppress(OSError):
            entries = list(os.scandir(folder))
        if folder != root and not _MARKS.isdisjoint(entry.name for entry in entries):
            continue
        found.append(folder)
        if folder == root or not os.path.islink(folder):  # only what a link leads to is watched
            inside = (entry.path for entry in entries if _is_folder(entry))
            waiting.extend(path for path in sorted(inside) if not is_left_out(path))
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.name not in _NEVER and entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
