"""What an export does not carry over, as diagnostics with the places in the user's file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from servd.config.bento.declared import component_paths
from servd.config.load import Loaded
from servd.config.table import Table
from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic, Severity, in_order
from servd.core.quick_dataclass import dataclass
from servd.export.carried import fate_of
from servd.export.fate import TITLES, Engine, Fate

CODE = "not-carried"
LOST = ("lost", "refused")

_FROM_OUTSIDE = ("env_passthrough",)
"""Keys about what a container is given, whatever is in it."""


@dataclass(frozen=True, slots=True)
class SetKey:
    """A key that has another value than its default: its dotted name in the table of `carried`,
    its path in the configuration, and its value as JSON.
    """

    key: str
    path: Path
    value: Any


def fate_in(each: SetKey, engine: Engine, *, whole: bool = False) -> Fate:
    """Returns what becomes of a key. `whole`: all services are in one container of that engine, so
    what one container carries over is carried over.
    """
    fate = fate_of(each.key, engine, each.value)
    if not whole or fate.kind not in LOST or each.key in _FROM_OUTSIDE:
        return fate
    inside = fate_of(each.key, "dockerfile", each.value)
    return fate if inside.kind in LOST else inside


def is_carried(each: SetKey, engine: Engine, *, whole: bool = False) -> bool:
    """Returns whether a key has its effect in another engine."""
    return fate_in(each, engine, whole=whole).kind not in LOST


def not_carried(
    loaded: Loaded, engine: Engine, services: Iterable[str] | None = None, *, whole: bool = False
) -> list[Diagnostic]:
    """Returns what is not carried over, in the order of the files: warnings for what is lost, and
    errors for what is refused. With `services`, of these and of servd's own settings.
    """
    assert loaded.layers is not None
    checked = context_of(loaded)
    found: list[Diagnostic] = []
    for each in set_keys(loaded, services):
        fate = fate_in(each, engine, whole=whole)
        if fate.kind not in LOST:
            continue
        severity: Severity = "error" if fate.kind == "refused" else "warning"
        message = f"not carried over to {TITLES[engine]}: {fate.text}"
        found.append(checked.problem(each.path, message, at_key=True, severity=severity, code=CODE))
    return in_order(found)


def context_of(loaded: Loaded) -> ValidationContext:
    """Returns the constructor of diagnostics about a loaded configuration."""
    assert loaded.layers is not None
    paths = component_paths(loaded.parts)
    return ValidationContext(loaded.config, loaded.layers, component_paths=paths)


def set_keys(loaded: Loaded, services: Iterable[str] | None = None) -> Iterator[SetKey]:
    """Yields every key with another value than its default; those that a service inherits too."""
    config = loaded.config
    yield from _of_table(config.daemon, ("daemon",), "daemon.")
    yield from _of_table(config.admin, ("admin",), "admin.")
    for index, hook in enumerate(config.hooks):
        yield from _of_table(hook, ("hooks", index), "hooks.")
    for name in config.services if services is None else services:
        yield from _of_table(config.services[name], ("services", name), "")


def _of_table(table: Table, path: Path, prefix: str) -> Iterator[SetKey]:
    """Yields the keys of a table and of the tables in it, but not of components: they are services
    themselves once their code was asked.
    """
    spelled = table.model_dump(mode="json", exclude_unset=True)
    defaults = type(table).model_construct().model_dump(mode="json", warnings=False)
    for name, value in table:
        if name not in spelled:
            continue
        key, here = f"{prefix}{name}", (*path, name)
        if isinstance(value, Table):
            yield from _of_table(value, here, f"{key}.")
        elif spelled[name] not in (defaults.get(name), None):
            yield SetKey(key, here, spelled[name])
            for index, item in enumerate(value if isinstance(value, tuple) else ()):
                if isinstance(item, Table):
                    yield from _of_table(item, (*here, index), f"{key}.")
