"""The JSON Schema of the configuration, for editors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from servd.config.choices import CHOICES, TITLES
from servd.config.gpu_table import GpuNeeds
from servd.config.model import Config
from servd.config.service import Dependency, EnvFile
from servd.config.table import Table
from servd.config.words import words_of

_DRAFT = "http://json-schema.org/draft-07/schema#"
_ID = "urn:servd:configuration"
_SCALARS = ("integer", "number", "boolean")
_REFERENCE = {"type": "string", "pattern": r"\$\{.+\}"}
_SWITCH_WORDS = words_of(("true", "false", "yes", "no", "on", "off"), "title", "upper")
_OFF_WORDS = words_of(("off", "no", "none", "false"))
_POLICY_WORDS = words_of(("unless-stopped", "no"))

_NAMED = (Dependency, EnvFile, GpuNeeds)
"""Tables that a description of a value names by `table`."""

_SWITCHABLE = ("Limits", "Health", "Tls", "Autoscale", "Warmup")

_PART_OF_A_TABLE = {"type": "object", "additionalProperties": True}
"""A rule about some keys of a table with other keys, explicit for strict editors."""

Schema = dict[str, Any]


def json_schema() -> Schema:
    """Returns the JSON Schema of a file, as far as drafts 7 and 2020-12 agree (TOML editors)."""
    _build(Table)
    schema = Config.model_json_schema(mode="validation")
    definitions = schema.pop("$defs", {})
    definitions |= {each.__name__: each.model_json_schema() for each in _NAMED}
    models: list[tuple[Schema, type[BaseModel]]] = [(schema, Config), *_models(definitions)]
    for definition, model in models:
        _spell_defaults(definition, model)
        for name, value in definition.get("properties", {}).items():
            _allow_words(value)
            _allow_references(value)
            _describe_choices(value, _choices_of(model, name))
            _join_patterns(value)
    _allow_false(definitions, [{"$ref": f"#/$defs/{name}"} for name in _SWITCHABLE])
    _allow_a_policy(definitions)
    definitions["Service"] |= _what_runs()
    head = {"$schema": _DRAFT, "$id": _ID, "title": "Configuration of servd"}
    own = {"patternProperties": {"^x-": {"description": "For YAML anchors. servd ignores it."}}}
    whole = {**head, **schema, **head, **own, "definitions": definitions}
    cleaned: Schema = _cleaned(whole)
    for name, title in TITLES.items():
        cleaned["definitions"][name] = {"title": title, **cleaned["definitions"][name]}
    return cleaned


def schema_text() -> str:
    """Returns the content of `schemas/servd.schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def schema_file() -> str:
    """Returns the path of the installed schema, or that of a source checkout; "" for none."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for folder in (package, os.path.dirname(package)):
        path = os.path.join(folder, "schemas", "servd.schema.json")
        if os.path.isfile(path):
            return path
    return ""


def _build(model: type[BaseModel]) -> None:
    """Builds the models in the order of their definition: pydantic describes a table inside another
    by what it knows of it, and `Table` defers that.
    """
    model.model_rebuild()
    for each in model.__subclasses__():
        _build(each)


def _models(definitions: Schema) -> Iterator[tuple[Schema, type[BaseModel]]]:
    waiting: list[type[BaseModel]] = [Table]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if model.__name__ in definitions:
            yield definitions[model.__name__], model


def _spell_defaults(definition: Schema, model: type[BaseModel]) -> None:
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


def _parts_of(value: Schema) -> list[Schema]:
    """Returns the alternatives of a value; one if it has no `anyOf`."""
    parts: list[Schema] = value.get("anyOf", [value])
    return parts


def _with_parts(value: Schema, *more: Schema) -> None:
    """Adds alternatives to a value."""
    if "anyOf" not in value:
        apart = ("description", "default", "examples", "title")
        value["anyOf"] = [{key: value.pop(key) for key in list(value) if key not in apart}]
    value["anyOf"] = [*value["anyOf"], *more]


def _allow_words(value: Schema) -> None:
    """Allows `off` and similar words for a boolean."""
    if any(part.get("type") == "boolean" for part in _parts_of(value)):
        _with_parts(value, _SWITCH_WORDS)


def _allow_references(value: Schema) -> None:
    """Allows `"${VAR}"` for a number, a boolean or a choice of words."""
    parts = _parts_of(value)
    if any(part.get("type") == "string" and not _is_narrow(part) for part in parts):
        return
    if any(part.get("type") in _SCALARS or _is_narrow(part) for part in parts):
        _with_parts(value, _REFERENCE)


def _is_narrow(part: Schema) -> bool:
    return "enum" in part or "const" in part or "pattern" in part


def _join_patterns(value: Schema) -> None:
    """Joins the alternatives that are patterns, so that editors show one message for a text."""
    patterns = [part for part in _parts_of(value) if part.keys() == {"type", "pattern"}]
    words = [part["const"] for part in _parts_of(value) if isinstance(part.get("const"), str)]
    if "anyOf" in value and patterns and len(patterns) + bool(words) > 1:
        listed = [words_of(words)["pattern"]] if words else []  # for the message
        whole = "|".join([*listed, *(part["pattern"] for part in patterns)])
        others = [part for part in value["anyOf"] if part not in patterns]
        joined = {"type": "string", "pattern": whole}
        value["anyOf"] = [*others, joined] if words else [joined, *others]  # the first is reported


def _choices_of(model: type[BaseModel], name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in model.__mro__:
        found = found or dict(CHOICES.get(f"{each.__name__}.{name}", {}))
    return found


def _describe_choices(value: Schema, meanings: dict[str, str]) -> None:
    """Writes each word of an enumeration as a constant with its meaning, at any depth."""
    parts = _parts_of(value)
    for part in parts:
        if "items" in part:
            _describe_choices(part["items"], meanings)
    described = [each for part in parts for each in _described(part, meanings)]
    if described != parts:
        for key in ("enum", "type") if parts == [value] else ():
            value.pop(key, None)
        value["anyOf"] = described


def _described(part: Schema, meanings: dict[str, str]) -> list[Schema]:
    """Returns the words of a part, each with its meaning, or the part."""
    words = part.get("enum", ())
    if not words or not set(words) <= meanings.keys():
        return [part]
    return [{"const": word, "description": meanings[word]} for word in words]


def _allow_false(definitions: Schema, references: list[dict[str, str]]) -> None:
    """Makes tables that can be switched off accept only the table or false."""
    for definition in definitions.values():
        for value in definition.get("properties", {}).values():
            if tables := [each for each in value.get("anyOf", ()) if each in references]:
                value["anyOf"] = [*tables, {"enum": [False]}, _OFF_WORDS, _REFERENCE]
                value.pop("default", None)
                _join_patterns(value)


def _allow_a_policy(definitions: Schema) -> None:
    """Allows `restart = "never"` for a table."""
    policy = definitions["Restart"]["properties"]["policy"]["anyOf"]
    for name in ("Service", "Defaults"):
        value = definitions[name]["properties"]["restart"]
        table = {"$ref": value.pop("$ref")}
        value["anyOf"] = [table, *policy, _POLICY_WORDS, {"enum": [False]}]
        _join_patterns(value)
        value["description"] = "What happens when a worker exits. A word sets the policy."


def _what_runs() -> Schema:
    """Returns the rule that a service has one of app, command, bento and external: one branch for
    each, so that editors show one message.
    """
    runners = ("command", "bento", "external", "app")

    def only(wanted: str) -> Schema:
        properties: Schema = {each: {} if each == wanted else False for each in runners}
        return {**_PART_OF_A_TABLE, "required": [wanted], "properties": properties}

    def branch(first: str, otherwise: Schema) -> Schema:
        given = {**_PART_OF_A_TABLE, "required": [first], "properties": {first: {}}}
        return {**_PART_OF_A_TABLE, "if": given, "then": only(first), "else": otherwise}

    whole = branch("command", branch("bento", branch("external", only("app"))))
    return {key: whole[key] for key in ("if", "then", "else")}


def _cleaned(value: Any) -> Any:
    """Points references into `definitions`, and drops the titles that pydantic derives from names.
    `table` is a reference that pydantic does not know.
    """
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if not isinstance(value, dict):
        return value.replace("#/$defs/", "#/definitions/") if isinstance(value, str) else value
    if isinstance(value.get("table"), str):
        return {"$ref": f"#/definitions/{value['table']}"}
    result: Schema = {}
    for key, item in value.items():
        if key in ("properties", "definitions"):
            result[key] = {name: _cleaned(entry) for name, entry in item.items()}
        elif key != "title" or not isinstance(item, str) or "$schema" in value:
            result[key] = _cleaned(item)
    return result
