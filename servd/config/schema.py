"""The JSON Schema of the configuration, for editors."""

from __future__ import annotations

import json
from typing import Any

from servd.config.model import Config

_DRAFT = "http://json-schema.org/draft-07/schema#"


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a file, as far as drafts 7 and 2020-12 agree (TOML editors)."""
    schema = Config.model_json_schema(mode="validation")
    definitions = schema.pop("$defs", {})
    _allow_false(definitions, [{"$ref": f"#/$defs/{name}"} for name in ("Limits", "Health", "Tls")])
    service = definitions["Service"]
    service["allOf"] = [{"oneOf": [{"required": [key]} for key in ("app", "command", "bento")]}]
    head = {"$schema": _DRAFT, "title": "servd configuration"}
    cleaned: dict[str, Any] = _cleaned({**head, **schema, "definitions": definitions})
    return cleaned


def schema_text() -> str:
    """Returns the content of `schemas/servd.schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _allow_false(definitions: dict[str, Any], references: list[dict[str, str]]) -> None:
    """Makes tables that can be switched off accept the table or false, and nothing else."""
    for definition in definitions.values():
        for value in definition.get("properties", {}).values():
            if tables := [each for each in value.get("anyOf", ()) if each in references]:
                value["anyOf"] = [*tables, {"enum": [False]}]
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
