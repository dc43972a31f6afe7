"""Turns pydantic's errors into diagnostics for the author of the file."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from servd.config.model import Config
from servd.config.scalars import joined, shown
from servd.config.tree import Node, Path, dotted
from servd.core.diagnostics import Diagnostic
from servd.core.secrets import MASK

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "int_from_float": "a whole number",
}


def explain(problem: Mapping[str, Any], path: Path, node: Node) -> Diagnostic:
    """Returns the diagnostic for one error of pydantic at `path`, whose node is `node`."""
    kind = problem["type"]
    label, place = dotted(path), node.place
    given = MASK if node.secret else shown(problem["input"])
    context = problem.get("ctx", {})
    hint = ""
    if kind == "extra_forbidden":
        name = str(path[-1]) if path else ""
        hint = did_you_mean(name, keys_at(path[:-1]))
        return Diagnostic(node.key_place, "unknown key", label, hint, code="unknown_key")
    if kind == "missing":
        name = str(problem["loc"][-1])
        return Diagnostic(node.key_place, f'"{name}" is missing here', label, code="missing")
    if kind == "string_pattern_mismatch" and problem["loc"][-1] == "[key]":
        message = (
            "is not a name for a service: use lower-case letters, digits, - and _ (at most 63)"
        )
        return Diagnostic(node.key_place, message, label, code="name")
    if kind == "literal_error":
        choices = _choices(context["expected"])
        message = f"expected {joined(shown_choice(c) for c in choices)}, got {given}"
        hint = did_you_mean(str(problem["input"]), choices)
    elif kind in _EXPECTED:
        message = f"expected {_EXPECTED[kind]}, got {given}"
    elif kind in ("greater_than_equal", "less_than_equal"):
        bound = context["ge" if kind == "greater_than_equal" else "le"]
        side = "least" if kind == "greater_than_equal" else "most"
        message = f"must be at {side} {bound}, got {given}"
    elif kind in ("too_short", "string_too_short"):
        message = "must not be empty"
    elif kind == "string_pattern_mismatch":
        message = f"{given} does not match {context['pattern']}"
    elif kind == "servd":
        message = MASK.join((f"{given} is not valid", "")) if node.secret else str(problem["msg"])
    else:
        message = str(problem["msg"]).replace("Input should be", "must be")
    return Diagnostic(place, message, label, hint, code="value")


def _choices(expected: str) -> list[str]:
    """Returns the values in pydantic's "'a', 'b' or 'c'"."""
    return [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(", ")]


def shown_choice(choice: str) -> str:
    """Returns a choice as a file spells it: numbers bare, words quoted."""
    return choice if choice.isdigit() else f'"{choice}"'


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """Returns a hint with the closest of `known`, or ""."""
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else ""


def keys_at(path: Path) -> list[str]:
    """Returns the possible keys of the table at `path`; empty if any key is allowed."""
    model = table_at(path)
    return sorted(model.model_fields) if model is not None else []


def table_at(path: Path) -> type[BaseModel] | None:
    """Returns the model of the table at `path` of a configuration, or None."""
    annotation: Any = Config
    for step in path:
        model = _model_in(annotation)
        if model is not None and isinstance(step, str):
            field = model.model_fields.get(step)
            if field is None:
                return None
            annotation = field.annotation
        else:
            annotation = _inside(annotation)
    return _model_in(annotation)


def _inside(annotation: Any) -> Any:
    """Returns the type of a dict's values or a tuple's items."""
    for part in _parts(annotation):
        if get_origin(part) is dict:
            return get_args(part)[1]
        if get_origin(part) is tuple:
            return get_args(part)[0]
    return None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for part in _parts(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for member in get_args(annotation) for part in _parts(member)]
    if hasattr(annotation, "__metadata__"):
        return _parts(annotation.__origin__)
    return [annotation]
