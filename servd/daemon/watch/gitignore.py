"""Applies `.gitignore` files, by the rules of gitignore(5)."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import TYPE_CHECKING

from servd.daemon.watch.folders import folders_below

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_ALWAYS = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})
"""Folders that never hold sources, like hidden ones."""


class Ignored:
    """The `.gitignore` files below `root` and of the folders above it, up to that of `.git`."""

    def __init__(self, root: str) -> None:
        self._specs: dict[str, GitIgnoreSpec | None] = {}
        self.top = _repository_of(root)

    def __call__(self, path: str, *, is_folder: bool = False) -> bool:
        """Whether a path below the root is ignored, itself or through a folder above it."""
        within = os.path.relpath(path, self.top).split(os.sep)
        return any(
            self._names(within[:depth], is_folder=is_folder or depth < len(within))
            for depth in range(1, len(within) + 1)
        )

    def _names(self, steps: list[str], *, is_folder: bool) -> bool:
        """Whether a rule names exactly this path: the nearest file with a match decides."""
        if is_folder and (steps[-1] in _ALWAYS or steps[-1].startswith(".")):
            return True
        for above in range(len(steps) - 1, -1, -1):
            spec = self._spec(os.path.join(self.top, *steps[:above]))
            if spec is None:
                continue
            matched = spec.check_file("/".join(steps[above:]) + ("/" if is_folder else "")).include
            if matched is not None:
                return matched
        return False

    def _spec(self, folder: str) -> GitIgnoreSpec | None:
        if folder not in self._specs:
            from pathspec import GitIgnoreSpec  # used in development only

            try:
                with open(os.path.join(folder, ".gitignore"), encoding="utf-8") as file:
                    self._specs[folder] = GitIgnoreSpec.from_lines(file)
            except (OSError, ValueError):
                self._specs[folder] = None
        return self._specs[folder]

    def folders(self, root: str) -> list[str]:
        """Returns `root` and the folders below it that are not ignored."""
        return folders_below(root, lambda folder: self(folder, is_folder=True))


def _repository_of(folder: str) -> str:
    """Returns the repository's top folder, or `folder` outside a repository."""
    folders = (folder, *map(str, PurePath(folder).parents))
    return next((f for f in folders if os.path.exists(os.path.join(f, ".git"))), folder)
