"""Layers variables (`SERVD_DAEMON__LOG__LEVEL`) over the files over `[defaults]`, by
pydantic-settings; its own file sources would lose the places.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from servd.config.explain import explain
from servd.config.model import Config
from servd.config.tree import Node, Path, UntypedText, graft, nearest, plain
from servd.core.diagnostics import Diagnostic, Place
from servd.core.secrets import is_secret_name

_OVERRIDE = re.compile(r"SERVD_(DAEMON|ADMIN|DEFAULTS)__(.+)", re.IGNORECASE)
_NOT_INHERITED = ("env", "env_file")
"""The plan layers these: a service's env_file overrides the env of `[defaults]`."""


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


class _Source(PydanticBaseSettingsSource):
    """A source with the values of a whole tree."""

    def __init__(self, settings: type[BaseSettings], values: dict[str, Any]) -> None:
        super().__init__(settings)
        self.values = values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self.values


class _InheritanceSource(_Source):
    """The keys of `[defaults]` as the lowest layer of every service."""

    def __call__(self) -> dict[str, Any]:
        shared = self.current_state.get("defaults")
        services = self.current_state.get("services")
        if not isinstance(shared, dict) or not isinstance(services, dict):
            return {}
        inherited = {key: value for key, value in shared.items() if key not in _NOT_INHERITED}
        tables = [name for name, service in services.items() if isinstance(service, dict)]
        return {"services": dict.fromkeys(tables, inherited)}


class _LayeredConfig(Config, BaseSettings):
    """`Config`, filled from the three sources."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given: dict[str, Any] = init_settings.init_kwargs  # type: ignore[attr-defined]
        return (
            _Source(settings_cls, given["environment"]),
            _Source(settings_cls, given["file"]),
            _InheritanceSource(settings_cls, {}),
        )


def validate(layers: Layers, *, damaged: bool = False) -> tuple[Config, list[Diagnostic]]:
    """Returns the configuration of the layers, and every mistake; with `damaged`, no missing keys.
    Invalid values are removed and the rest is validated again, for the rules about the whole.
    """
    environment, file = plain(layers.environment), plain(layers.file)
    found: list[Diagnostic] = []
    for _ in range(10):
        try:
            # arguments of the sources, not fields
            settings = _LayeredConfig(environment=environment, file=file)  # type: ignore[call-arg]
        except ValidationError as error:
            dropped: set[Path] = set()
            problems = error.errors(include_url=False)
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
    return Config(), found


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
