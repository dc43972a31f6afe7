"""The JSON Schema of the configuration, for editors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from servd.config.model import Config
from servd.config.service import Table

_DRAFT = "http://json-schema.org/draft-07/schema#"
_ID = "urn:servd:configuration"
_SCALARS = ("integer", "number", "boolean")
_REFERENCE = {"type": "string", "pattern": r"\$\{.+\}"}


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a file, as far as drafts 7 and 2020-12 agree (TOML editors)."""
    schema = Config.model_json_schema(mode="validation")
    definitions = schema.pop("$defs", {})
    models: list[tuple[dict[str, Any], type[BaseModel]]] = [(schema, Config)]
    for definition, model in [*models, *_models(definitions)]:
        _spell_defaults(definition, model)
        for value in definition.get("properties", {}).values():
            _allow_references(value)
    _allow_false(definitions, [{"$ref": f"#/$defs/{name}"} for name in ("Limits", "Health", "Tls")])
    service = definitions["Service"]
    service["allOf"] = [{"oneOf": [{"required": [key]} for key in ("app", "command", "bento")]}]
    head = {"$schema": _DRAFT, "$id": _ID, "title": "servd configuration"}
    own = {"patternProperties": {"^x-": {"description": "For anchors; servd ignores it."}}}
    whole = {**head, **schema, **head, **own, "definitions": definitions}
    cleaned: dict[str, Any] = _cleaned(whole)
    return cleaned


def _models(definitions: dict[str, Any]) -> Iterator[tuple[dict[str, Any], type[BaseModel]]]:
    waiting: list[type[BaseModel]] = [Table]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if model.__name__ in definitions:
            yield definitions[model.__name__], model


def _spell_defaults(definition: dict[str, Any], model: type[BaseModel]) -> None:
    """Writes defaults as a file spells them: `60s` for 60.0. Tables have those of their keys."""
    spelled = model.model_construct().model_dump(mode="json", warnings=False)
    for name, value in definition.get("properties", {}).items():
        if "default" not in value:
            continue
        default = spelled[name]
        if default is None or isinstance(default, dict):
            del value["default"]
        else:
            value["default"] = default


def _allow_references(value: dict[str, Any]) -> None:
    """Lets `"${VAR}"` stand where a number, a boolean or one of some words is expected."""
    parts = value.get("anyOf", [value])
    if any(part.get("type") == "string" and not _is_narrow(part) for part in parts):
        return
    if not any(part.get("type") in _SCALARS or _is_narrow(part) for part in parts):
        return
    if "anyOf" in value:
        value["anyOf"] = [*parts, _REFERENCE]
        return
    kept = {key: value.pop(key) for key in list(value) if key not in ("description", "default")}
    value["anyOf"] = [kept, _REFERENCE]


def _is_narrow(part: dict[str, Any]) -> bool:
    return "enum" in part or "const" in part or "pattern" in part


def schema_text() -> str:
    """Returns the content of `schemas/servd.schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _allow_false(definitions: dict[str, Any], references: list[dict[str, str]]) -> None:
    """Makes tables that can be switched off accept the table or false, and nothing else."""
    for definition in definitions.values():
        for value in definition.get("properties", {}).values():
            if tables := [each for each in value.get("anyOf", ()) if each in references]:
                value["anyOf"] = [*tables, {"enum": [False]}, _REFERENCE]
                value.pop("default", None)


def _cleaned(value: Any) -> Any:
    """Points references into `definitions`, and drops the titles that pydantic makes of names."""
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if not isinstance(value, dict):
        return value.replace("#/$defs/", "#/definitions/") if isinstance(value, str) else value
    result: dict[str, Any] = {}
    for key, item in value.items():
        if key in ("properties", "definitions"):
            result[key] = {name: _cleaned(entry) for name, entry in item.items()}
        elif key != "title" or not isinstance(item, str) or "$schema" in value:
            result[key] = _cleaned(item)
    return result
