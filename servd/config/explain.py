"""Turns the errors of pydantic into diagnostics for the author of the file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from servd.config.model_paths import keys_at, table_at
from servd.config.neighbours import neighbours_key, neighbours_value
from servd.config.redact import redact
from servd.config.scalars import joined, shown
from servd.config.service import ServiceBase
from servd.config.tree import Node, Path, dotted
from servd.config.worker_tables import HOST_HEADER, URL_PATH
from servd.config.wrong_place import right_place
from servd.core.diagnostics import Diagnostic
from servd.core.secrets import MASK, is_secret_name

_EXPECTED = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "bool_type": "true or false", "string_type": "text", "tuple_type": "a list",
    "dict_type": "a table", "model_type": "a table", "model_attributes_type": "a table",
}  # fmt: skip
_BAD_NAME = "invalid service name: use a-z, 0-9, - and _, with a letter first (at most 63)"


def explain(problem: Mapping[str, Any], path: Path, node: Node) -> Diagnostic:
    """Returns the diagnostic for one error of pydantic at `path`, whose node is `node`."""
    kind, last = problem["type"], problem["loc"][-1] if problem["loc"] else ""
    label = dotted(path)
    if kind == "extra_forbidden":
        word = str(path[-1]) if path else ""
        table = table_at(path[:-1])
        of_service = table is not None and issubclass(table, ServiceBase)
        hint = (
            (of_service and neighbours_key(word))
            or right_place(path, node)
            or did_you_mean(word, keys_at(path[:-1]))
        )
        return Diagnostic(node.key_place, "unknown key", label, hint, code="unknown_key")
    if kind == "missing":
        return Diagnostic(node.key_place, f'missing key "{last}"', label, code="missing")
    if kind == "string_pattern_mismatch" and last == "[key]":
        return Diagnostic(node.key_place, _BAD_NAME, label, code="name")
    place = node.key_place if last == "[key]" else node.place
    if is_secret_name(str(last)) and isinstance(problem["input"], int | float):
        problem = {**problem, "input": MASK}
    return Diagnostic(
        place, redact(_message(problem), node), label, _hint(problem, label), code="value"
    )


def _hint(problem: Mapping[str, Any], label: str) -> str:
    """Returns what to write instead of a wrong value, or ""."""
    kind, given = problem["type"], problem["input"]
    if label == "version":
        return "omit it, or write 1"
    if kind == "literal_error":
        choices = _choices(problem["ctx"]["expected"])
        if str(given) in choices:
            return f"write {shown_choice(str(given))}"
        known = neighbours_value(label, given)
        return f'did you mean "{known}"?' if known else did_you_mean(str(given), choices)
    if kind == "string_type":
        return _as_text(given)
    if kind not in _TABLE_TYPES:
        return ""
    if given is None:
        return "write its keys below it, indented"
    if label.startswith("services.") and label.count(".") == 1 and isinstance(given, str):
        return f"write {{ command = {shown(given)} }}"
    return _TABLES.get(label.rpartition(".")[2], "")


def _as_text(given: object) -> str:
    """Returns how a value of another type is written as text, or ""."""
    if given is None:
        return 'write "" for an empty value'
    return f'write "{shown(given)}"' if isinstance(given, bool | int | float) else ""


_PATTERNS = {
    URL_PATH: "is not a URL path: it must begin with / and contain no spaces",
    HOST_HEADER: "is not a host: it must contain no spaces",
}
_TABLE_TYPES = ("dict_type", "model_type", "model_attributes_type", "tuple_type")
_TABLES = {
    "services": "write a table for each service: [services.NAME]",
    "env": 'write env = { NAME = "value" }',
    "health": 'write health = { path = "/healthz" }',
    "tls": 'write tls = { certfile = "cert.pem", keyfile = "key.pem" }',
    "limits": "write limits = { concurrency = 100 }",
    "timeouts": 'write timeouts = { request = "30s" }',
    "log": 'write log = { level = "debug" }',
    "rlimits": "write rlimits = { nofile = 65536 }",
    "rollout": 'write rollout = { strategy = "one-by-one" }',
    "depends_on": 'write [{ service = "db", condition = "ready" }]',
    "hooks": "write [[hooks]]",
    "admin": "write admin = { enabled = false }",
}
"""Hints for keys that expect a table or a list and have another value."""


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
            return f"{given} {_PATTERNS.get(context['pattern'], 'has an invalid form')}"
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
