"""Turns pydantic's errors into diagnostics for the author of the file."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from servd.config.model import Config
from servd.config.neighbours import neighbours_key
from servd.config.redact import redact
from servd.config.scalars import joined, shown
from servd.config.service import ServiceBase
from servd.config.tree import Node, Path, dotted
from servd.core.diagnostics import Diagnostic

_EXPECTED = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "bool_type": "true or false", "string_type": "text", "tuple_type": "a list",
    "dict_type": "a table", "model_type": "a table", "model_attributes_type": "a table",
}  # fmt: skip
_BAD_NAME = "is not a name for a service: use lower-case letters, digits, - and _ (at most 63)"


def explain(problem: Mapping[str, Any], path: Path, node: Node) -> Diagnostic:
    """Returns the diagnostic for one error of pydantic at `path`, whose node is `node`."""
    kind, last = problem["type"], problem["loc"][-1] if problem["loc"] else ""
    label = dotted(path)
    if kind == "extra_forbidden":
        word = str(path[-1]) if path else ""
        table = table_at(path[:-1])
        of_service = table is not None and issubclass(table, ServiceBase)
        hint = (of_service and neighbours_key(word)) or did_you_mean(word, keys_at(path[:-1]))
        return Diagnostic(node.key_place, "unknown key", label, hint, code="unknown_key")
    if kind == "missing":
        return Diagnostic(node.key_place, f'"{last}" is missing here', label, code="missing")
    if kind == "string_pattern_mismatch" and last == "[key]":
        return Diagnostic(node.key_place, _BAD_NAME, label, code="name")
    choices = _choices(problem["ctx"]["expected"]) if kind == "literal_error" else []
    hint = did_you_mean(str(problem["input"]), choices)
    return Diagnostic(node.place, redact(_message(problem), node), label, hint, code="value")


def _message(problem: Mapping[str, Any]) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    given = shown(problem["input"])
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {given}"
    match kind:
        case "literal_error":
            choices = map(shown_choice, _choices(context["expected"]))
            return f"expected {joined(choices)}, got {given}"
        case "greater_than_equal":
            return f"must be at least {context['ge']}, got {given}"
        case "less_than_equal":
            return f"must be at most {context['le']}, got {given}"
        case "too_short" | "string_too_short":
            return "must not be empty"
        case "string_pattern_mismatch":
            return f"{given} does not match {context['pattern']}"
    return str(problem["msg"]).replace("Input should be", "must be")


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
        if model is None or not isinstance(step, str):
            annotation = _inside(annotation)
        elif step in model.model_fields:
            annotation = model.model_fields[step].annotation
        else:
            return None
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
    parts = _parts(annotation)
    return next((p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)), None)


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for member in get_args(annotation) for part in _parts(member)]
    if hasattr(annotation, "__metadata__"):
        return _parts(annotation.__origin__)
    return [annotation]
