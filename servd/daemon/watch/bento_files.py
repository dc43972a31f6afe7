"""The files that `bentoml serve --reload` watches: those that `include` and `exclude` of the build
file and the files `.bentoignore` leave in.
"""

from __future__ import annotations

import os
import re
import tomllib
import warnings
from typing import TYPE_CHECKING, Any

from servd.daemon.watch.folders import folders_below

if TYPE_CHECKING:
    from pathspec import PathSpec

BUILD_FILES = ("bentofile.yaml", "pyproject.toml")
"""The first one that is there counts."""

IGNORE_FILE = ".bentoignore"

_NEVER = (".git/", ".venv/", "venv/", "__pycache__/", ".DS_Store")
"""What BentoML leaves out always."""

_EDITORS = re.compile(r"\..*\.sw.|.*~|\.#.*|.*___jb_(tmp|old)___|4913")
"""Files that editors keep beside one that they edit."""


class BuildFileError(Exception):
    """The build file cannot be read."""


class BentoFiles:
    """The rules for files below the folder `root`, as `read` found them last; at first BentoML's
    defaults.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._never = _spec(_NEVER)
        self._include = _spec(["*"])
        self._exclude = _spec([])
        self._ignored: dict[str, PathSpec[Any]] = {}

    def read(self) -> None:
        """Reads the build file again. Raises `BuildFileError`: then the rules stay."""
        include, exclude = _patterns(self.root)
        self._include, self._exclude = _spec(include), _spec(exclude)

    def folders(self) -> list[str]:
        """Returns the folders that can have such files, and reads the files `.bentoignore`."""
        self._ignored = {}
        if not os.path.isdir(self.root):
            return []
        self._note(self.root)
        return folders_below(self.root, self._leaves_out)

    def __call__(self, path: str) -> bool:
        """Whether a file, which may be deleted, is watched."""
        if not path.startswith(self.root + os.sep) or _EDITORS.fullmatch(os.path.basename(path)):
            return False
        if os.path.lexists(path):
            if not os.path.isfile(path):
                return False
        elif self._is_out(path + os.sep):  # a folder was deleted
            return False
        within = os.path.relpath(path, self.root)
        return self._include.match_file(within) and not self._is_out(path)

    def _is_out(self, path: str) -> bool:
        within = path[len(self.root) + 1 :]
        if self._exclude.match_file(within) or self._never.match_file(within):
            return True
        return any(
            spec.match_file(path[len(folder) + 1 :])
            for folder, spec in self._ignored.items()
            if path.startswith(folder + os.sep)
        )

    def _leaves_out(self, folder: str) -> bool:
        """Whether all that is in a folder is out. Called for a folder before what is below it."""
        if self._is_out(folder + os.sep) and not self._has_exceptions():
            return True
        self._note(folder)
        return self._never.match_file(folder[len(self.root) + 1 :] + os.sep)

    def _has_exceptions(self) -> bool:
        specs = (self._exclude, *self._ignored.values())
        return any(pattern.include is False for spec in specs for pattern in spec.patterns)

    def _note(self, folder: str) -> None:
        try:
            with open(os.path.join(folder, IGNORE_FILE), encoding="utf-8") as file:
                self._ignored[folder] = _spec(file)
        except (OSError, ValueError):
            return


def _spec(lines: Any) -> PathSpec[Any]:
    """Returns the patterns as BentoML reads them. Raises ValueError."""
    from pathspec import PathSpec

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return PathSpec.from_lines("gitwildmatch", lines)


def _patterns(root: str) -> tuple[list[str], list[str]]:
    """Returns `include` and `exclude` of the build file. Raises `BuildFileError`."""
    path = next((p for name in BUILD_FILES if os.path.exists(p := os.path.join(root, name))), "")
    if not path:
        return ["*"], []
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if path.endswith(".toml"):
            table = tomllib.loads(text).get("tool", {}).get("bentoml", {}).get("build", {})
        else:
            from ruamel.yaml import YAML

            table = YAML(typ="safe", pure=True).load(text) or {}
        return _lines(table, "include", ["*"]), _lines(table, "exclude", [])
    except Exception as error:  # the libraries for YAML raise anything
        reason = " ".join(str(error).split())
        raise BuildFileError(f"{path}: {reason}") from None


def _lines(table: Any, key: str, default: list[str]) -> list[str]:
    value = table.get(key)
    if value is None:
        return default
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise ValueError(f"{key} is no list of patterns")
    _spec(value)
    return value
