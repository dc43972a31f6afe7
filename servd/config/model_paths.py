"""Finds the models of a configuration by path."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from servd.config.model import Config
from servd.config.tree import Path


def keys_at(path: Path) -> list[str]:
    """Returns the possible keys of the table at `path`; empty if any key is allowed."""
    model = table_at(path)
    return sorted(model.model_fields) if model is not None else []


def table_at(path: Path) -> type[BaseModel] | None:
    """Returns the model of the table at `path` of a configuration, or None."""
    annotation: Any = Config
    for step in path:
        model = model_in(annotation)
        if model is None or not isinstance(step, str):
            annotation = _inside(annotation)
        elif step in model.model_fields:
            annotation = model.model_fields[step].annotation
        else:
            return None
    return model_in(annotation)


def _inside(annotation: Any) -> Any:
    """Returns the type of a dict's values or a tuple's items."""
    for part in _members(annotation):
        if get_origin(part) is dict:
            return get_args(part)[1]
        if get_origin(part) is tuple:
            return get_args(part)[0]
    return None


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Returns the model among the members of a type, or None."""
    parts = _members(annotation)
    return next((p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)), None)


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for member in get_args(annotation) for part in _members(member)]
    if hasattr(annotation, "__metadata__"):
        return _members(annotation.__origin__)
    return [annotation]
