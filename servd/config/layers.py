"""Layers variables (`SERVD_DAEMON__LOG__LEVEL`) over the files over `[defaults]`; where variables
are set, by `settings`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from servd.config.explain import explain
from servd.config.gpu_table import FORM_TAGS
from servd.config.model import Config
from servd.config.tree import Node, Path, UntypedText, graft, nearest, plain
from servd.core.diagnostics import Diagnostic, Place
from servd.core.lean_import import stand_ins
from servd.core.quick_dataclass import dataclass
from servd.core.secrets import is_secret_name

_OVERRIDE = re.compile(r"SERVD_(DAEMON|ADMIN|DEFAULTS)__(.+)", re.IGNORECASE)
_NOT_INHERITED = ("env", "env_file")
"""The plan layers these: a service's env_file overrides the env of `[defaults]`."""

OF_EXTERNAL: Mapping[str, tuple[str, ...]] = {
    "external": (), "public_url": (), "directory": (), "timeouts": ("startup",),
    "health": ("path", "method", "body", "request", "expect", "host", "interval", "timeout",
               "failures"),
    "tls": ("ca_certs", "certfile", "keyfile"),
}  # fmt: skip
"""Keys of a service that runs elsewhere; of tables, their keys."""

_NO_PLUGINS = {"pydantic.plugin._loader": ModuleType("pydantic.plugin._loader")}
vars(_NO_PLUGINS["pydantic.plugin._loader"])["get_plugins"] = tuple
"""In place of pydantic's search through every installed distribution for plugins of its own."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The trees of the environment and of the files."""

    environment: Node
    file: Node

    def nearest(self, path: Path) -> tuple[Node, bool]:
        """Returns the node that decides the value at `path`, or the closest; whether it does."""
        for tree, way in self._ways(path):
            node, exact = nearest(tree, way)
            if exact:
                return node, True
        return nearest(self.file, path)

    def own(self, path: Path) -> bool:
        """Returns whether the files have a value at this path itself, not an inherited one."""
        return nearest(self.file, path)[1]

    def resolved(self, location: Path) -> Path:
        """Returns the longest prefix of `location` that was written by the user."""
        prefixes = (location[:length] for length in range(len(location), 0, -1))
        return next((prefix for prefix in prefixes if self.nearest(prefix)[1]), ())

    def _ways(self, path: Path) -> list[tuple[Node, Path]]:
        paths = [path]
        if path[:1] == ("services",) and len(path) > 2 and path[2] not in _NOT_INHERITED:
            paths.append(("defaults", *path[2:]))
        return [(tree, each) for each in paths for tree in (self.environment, self.file)]


def environment_tree(environ: Mapping[str, str]) -> Node:
    """Returns the tree of variables (`SERVD_DAEMON__GPUS=2`); names of `env` keep their case."""
    top = Place("<environment>")
    root = Node({}, top, top)
    for variable in sorted(environ):
        match = _OVERRIDE.fullmatch(variable)
        if match is None:
            continue
        names = [match[1].lower(), *match[2].split("__")]
        place = Place(f"<environment {variable}>")
        keys = [
            name if names[max(0, index - 1)].lower() == "env" else name.lower()
            for index, name in enumerate(names)
        ]
        secret = is_secret_name(keys[-1]) or "env" in keys
        root = _planted(root, keys, Node(UntypedText(environ[variable]), place, place, secret))
    return root


def _planted(table: Node, keys: list[str], leaf: Node) -> Node:
    if len(keys) == 1:
        return graft(table, {keys[0]: leaf})
    known = table.table.get(keys[0])
    is_table = known is not None and isinstance(known.value, dict)
    inner = known if known is not None and is_table else replace(leaf, value={})
    return graft(table, {keys[0]: _planted(inner, keys[1:], leaf)})


def _validated(environment: dict[str, Any], file: dict[str, Any]) -> Config:
    """Returns the configuration of two plain trees. Raises `ValidationError`."""
    if environment:
        from servd.config.settings import layered

        return layered(environment, file)
    values = of_file(file)
    if not Config.__pydantic_complete__:
        with stand_ins(_NO_PLUGINS):
            Config.model_rebuild()
    return Config.model_validate(values)


def of_file(file: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of a file with those of `[defaults]` below them: what pydantic-settings
    makes of it where no variable is set.
    """
    values = inherited(file)
    return _over({"services": values} if values else {}, file)


def _over(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of `upper`, and those of `lower` that it does not have."""
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        is_deeper = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _over(below, value) if is_deeper else value  # type: ignore[arg-type]
    return merged


def inherited(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what each service has of `[defaults]`."""
    shared, services = state.get("defaults"), state.get("services")
    if not isinstance(shared, dict) or not isinstance(services, dict):
        return {}
    values = {key: value for key, value in shared.items() if key not in _NOT_INHERITED}
    return {n: _of_kind(values, each) for n, each in services.items() if isinstance(each, dict)}


def _of_kind(shared: dict[str, Any], service: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a service takes over: one that runs elsewhere has no workers, and a fixed number
    of workers is in place of one that follows the load.
    """
    if "external" in service:
        tables = {key: shared.get(key) for key in ("health", "timeouts")}
        return {
            key: {each: table[each] for each in table if each in OF_EXTERNAL[key]}
            for key, table in tables.items()
            if isinstance(table, dict)
        }
    other = "autoscale" if "workers" in service else "workers"
    if "workers" in service or isinstance(service.get("autoscale"), dict):
        return {key: value for key, value in shared.items() if key != other}
    return shared


def validate(layers: Layers, *, damaged: bool = False) -> tuple[Config, list[Diagnostic]]:
    """Returns the configuration of the layers, and every mistake; with `damaged`, no missing keys.
    Invalid values are removed and the rest is validated again, for the rules about the whole.
    """
    environment, file = plain(layers.environment), plain(layers.file)
    found: list[Diagnostic] = []
    for _ in range(10):
        try:
            settings = _validated(environment, file)
        except ValidationError as error:
            dropped: set[Path] = set()
            problems = [_placed(problem) for problem in error.errors(include_url=False)]
            places = [problem["loc"] for problem in problems]
            for problem in problems:
                if problem["type"] == "too_short" and _is_explained(problem["loc"], places):
                    continue  # its items are wrong
                path = layers.resolved(problem["loc"])
                is_lost = problem["type"] == "missing" or problem["input"] is None
                if path not in dropped and not (damaged and is_lost):
                    found.append(explain(problem, path, layers.nearest(path)[0]))
                dropped.add(path)
            for path in dropped:
                of_service = path[:1] == ("services",) and len(path) > 2
                for each in (path, ("defaults", *path[2:])) if of_service else (path,):
                    _drop(environment, each)
                    _drop(file, each)
        else:
            values = {name: getattr(settings, name) for name in Config.model_fields}
            return Config.model_construct(**values), found
    return Config.unset(), found


def _placed(problem: ErrorDetails) -> ErrorDetails:
    """Returns a problem whose place is one in a file."""
    where = tuple(step for step in problem["loc"] if step not in FORM_TAGS)
    return {**problem, "loc": where}


def _is_explained(where: Path, places: Iterable[Path]) -> bool:
    return any(len(each) > len(where) and each[: len(where)] == where for each in places)


def _drop(values: Any, path: Path) -> None:
    """Removes the entry at `path`; for an item of a list, the whole list."""
    for step, following in itertools.zip_longest(path, path[1:]):
        if not isinstance(values, dict) or step not in values:
            return
        if following is None or isinstance(following, int):
            del values[step]
            return
        values = values[step]
