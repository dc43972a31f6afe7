"""What `.gitignore` files leave out, by the rules of gitignore(5)."""

from __future__ import annotations

import os

from pathspec import GitIgnoreSpec

ALWAYS = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})
"""Names of folders that hold no sources, whatever is said of them; nor do hidden ones."""


class Ignored:
    """The `.gitignore` files below `root` and of the folders above it, up to that of `.git`."""

    def __init__(self, root: str) -> None:
        self._specs: dict[str, GitIgnoreSpec | None] = {}
        self.top = _repository_of(root)

    def __call__(self, path: str, *, is_folder: bool = False) -> bool:
        """Whether a path below the root is left out, by itself or with a folder above it."""
        within = os.path.relpath(path, self.top).split(os.sep)
        for depth in range(1, len(within) + 1):
            last = depth == len(within)
            if self._names(within[:depth], is_folder=is_folder or not last):
                return True
        return False

    def _names(self, steps: list[str], *, is_folder: bool) -> bool:
        """Whether a rule names just this path: of all files that say something, the nearest."""
        if is_folder and (steps[-1] in ALWAYS or steps[-1].startswith(".")):
            return True
        for above in range(len(steps) - 1, -1, -1):
            spec = self._spec(os.path.join(self.top, *steps[:above]))
            if spec is None:
                continue
            said = spec.check_file("/".join(steps[above:]) + ("/" if is_folder else "")).include
            if said is not None:
                return said
        return False

    def _spec(self, folder: str) -> GitIgnoreSpec | None:
        if folder not in self._specs:
            try:
                with open(os.path.join(folder, ".gitignore"), encoding="utf-8") as file:
                    self._specs[folder] = GitIgnoreSpec.from_lines(file)
            except (OSError, ValueError):
                self._specs[folder] = None
        return self._specs[folder]

    def folders(self, root: str) -> list[str]:
        """`root` and the folders below it that are not left out."""
        found = [root]
        for folder, names, _ in os.walk(root):
            names[:] = [n for n in names if not self(os.path.join(folder, n), is_folder=True)]
            found += [os.path.join(folder, name) for name in names]
            if len(found) > MOST_FOLDERS:
                break
        return found[:MOST_FOLDERS]


MOST_FOLDERS = 5000
"""Folders beyond which a tree is not watched any further: the kernel's watches are few."""


def _repository_of(folder: str) -> str:
    """The folder that git starts from; the folder itself where there is none."""
    above = folder
    while not os.path.exists(os.path.join(above, ".git")):
        parent = os.path.dirname(above)
        if parent == above:
            return folder
        above = parent
    return above
