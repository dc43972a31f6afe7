"""Refuses keys of the language that are not implemented yet, unless they have their default."""

from __future__ import annotations

from typing import Any

from servd.config.tree import Path, dotted
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic

LATER_TOP: tuple[Path, ...] = ()
LATER_SERVICE: tuple[Path, ...] = (("preload",),)


def not_supported_yet(checked: ValidationContext) -> list[Diagnostic]:
    """Returns a mistake for every key of `LATER_*` that differs from its default."""
    config = checked.config
    paths = [path for path in LATER_TOP if _differs(config, path)]
    paths += [
        ("defaults", *path)
        for path in LATER_SERVICE
        if path[0] in type(config.defaults).model_fields and _differs(config.defaults, path)
    ]
    for name, service in config.services.items():
        paths += [("services", name, *path) for path in LATER_SERVICE if _differs(service, path)]
    paths = [checked.source_path(path) for path in paths]
    keys = [(checked.layers.nearest(path)[0].key_place, dotted(path)) for path in paths]
    return [Diagnostic(at, "not supported yet", key, code="not_supported") for at, key in keys]


def _differs(model: Any, path: Path) -> bool:
    """Returns whether the value at `path` below `model` differs from its default."""
    value = model
    for step in path:
        if value is None or not isinstance(step, str):
            return False
        default = type(value).model_fields[step].get_default(call_default_factory=True)
        value = getattr(value, step)
    return bool(value != default)
