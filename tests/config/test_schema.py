"""The JSON Schema that editors use, beside what servd itself accepts."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from servd.config.schema import json_schema, schema_text

ROOT = Path(__file__).parents[2]
SCHEMA = json_schema()


def valid(config: dict[str, Any]) -> bool:
    return jsonschema.Draft7Validator(SCHEMA).is_valid(config)


def web(**service: Any) -> dict[str, Any]:
    return {"services": {"web": {"app": "main:app", **service}}}


def test_the_committed_schema_is_the_generated_one() -> None:
    """Write it anew with `servd schema > schemas/servd.schema.json`."""
    assert (ROOT / "schemas" / "servd.schema.json").read_text() == schema_text()


def test_the_schema_is_a_valid_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("sample-configs/*/servd.toml")), ids=lambda path: path.parent.name
)
def test_samples_are_valid_by_it(path: Path) -> None:
    jsonschema.validate(tomllib.loads(path.read_text()), SCHEMA)


def test_a_file_with_every_key_is_valid_by_it() -> None:
    text = Path(__file__).with_name("everything.toml").read_text()
    jsonschema.validate(tomllib.loads(text), SCHEMA)


@pytest.mark.parametrize(
    ("service", "right"),
    [
        ({"limits": False}, True),
        ({"limits": True}, False),
        ({"workers": "auto"}, True),
        ({"workers": "four"}, False),
        ({"timeouts": {"drain": "5s"}}, True),
        ({"timeouts": {"drain": "5x"}}, False),
        ({"timeouts": {"request": "none"}}, True),
        ({"listen": [":80", "unix:/x"]}, True),
        ({"listen": []}, False),
        ({"depends_on": ["a", {"service": "b", "condition": "started"}]}, True),
        ({"depends_on": [{"condition": "started"}]}, False),
        ({"unknown": 1}, False),
        ({"command": ["x"]}, False),
        ({"umask": "027"}, True),
        ({"umask": "29"}, False),
        ({"umask": "${UMASK:-027}"}, True),
        ({"workers": "${WORKERS:-2}"}, True),
        ({"workers": "WORKERS"}, False),
        ({"factory": "${FACTORY:-false}"}, True),
        ({"timeouts": {"drain": "${DRAIN:-5s}"}}, True),
        ({"limits": {"body": "${BODY:-1MiB}"}}, True),
        ({"health": "${HEALTH:-false}"}, True),
        ({"log": {"level": "${LEVEL:-debug}"}}, True),
        ({"rlimits": {"nofile": "unlimited"}}, True),
        ({"rlimits": {"files": 1}}, False),
    ],
)
def test_the_schema_and_servd_agree(service: dict[str, Any], right: bool) -> None:
    from pydantic import ValidationError

    from servd.config.model import Config

    def tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tuples(entry) for key, entry in value.items()}
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    config = web(**service)
    assert valid(config) is right
    if "${" in str(service):
        return  # resolved before the model sees it
    if "command" in service:
        return  # one of app and command: a rule of the whole, not of the model
    try:
        Config.model_validate(tuples(config))
    except ValidationError:
        assert not right
    else:
        assert right


def test_a_file_may_have_keys_of_its_own_and_include_one_file() -> None:
    assert valid({"x-common": {"a": 1}, "include": "more.toml", **web()})
    assert valid({"include": ["a.toml", "conf.d/*.toml"], **web()})
    assert not valid({"y-common": {}, **web()})


def test_every_default_is_valid_where_it_stands() -> None:
    """Editors insert them."""

    def defaults(value: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
        if isinstance(value, dict):
            if "default" in value and "properties" not in value:
                yield path, value["default"], value
            for key, entry in value.items():
                yield from defaults(entry, f"{path}.{key}")

    found = list(defaults(SCHEMA))
    assert len(found) > 100
    for path, default, schema in found:
        whole = {**schema, "definitions": SCHEMA["definitions"]}
        assert jsonschema.Draft7Validator(whole).is_valid(default), path
    by_path = {path: default for path, default, _ in found}
    assert by_path[".definitions.Service.properties.listen"] == ["internal"]
    assert by_path[".definitions.Timeouts.properties.startup"] == "1m"


def test_every_key_is_described() -> None:
    def undescribed(value: Any, path: str = "") -> Iterator[str]:
        if isinstance(value, dict):
            for name, entry in value.get("properties", {}).items():
                if entry is False or entry == {}:
                    continue  # a rule, no key
                named = entry.get("$ref", "").rpartition("/")[2]
                described = SCHEMA["definitions"][named] if named else entry
                if "description" not in entry and "description" not in described:
                    yield f"{path}.{name}"
            for key, entry in value.items():
                yield from undescribed(entry, f"{path}.{key}")

    assert list(undescribed(SCHEMA)) == []


def test_it_keeps_the_rules_of_collections_of_schemas() -> None:
    """Those of SchemaStore: draft 7 by its usual address, an id without a fragment, a title and a
    description, nothing that no reference leads to, words and defaults of the right type.
    """
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert ":" in SCHEMA["$id"]
    assert "#" not in SCHEMA["$id"]
    assert SCHEMA["title"]
    assert SCHEMA["description"]
    assert SCHEMA["type"] == "object"
    text = schema_text()
    for name, definition in SCHEMA["definitions"].items():
        assert f'"#/definitions/{name}"' in text, name
        assert definition["title"], name
        assert definition["description"], name
    assert "\t" not in text


def test_every_word_of_a_choice_has_a_meaning() -> None:
    def words(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            yield from ((path, word) for word in value.get("enum", ()))
            if isinstance(value.get("const"), str):
                assert value["description"].endswith("."), path
            for key, entry in value.items():
                yield from words(entry, f"{path}.{key}")
        elif isinstance(value, list):
            for entry in value:
                yield from words(entry, path)

    plain = {str(word) for path, word in words(SCHEMA) if "propertyNames" not in path}
    assert plain == {"False", "none", "unlimited", "infinity", "1"} & plain


@pytest.mark.parametrize("name", ["Timeouts", "Limits", "ServiceLog"])
def test_units_have_examples(name: str) -> None:
    properties = SCHEMA["definitions"][name]["properties"]
    patterns = [value for value in properties.values() if "ms(ecs?)?" in str(value)]
    patterns += [value for value in properties.values() if "[KkMm" in str(value)]
    assert patterns
    for value in patterns:
        validator = jsonschema.Draft7Validator({"anyOf": value["anyOf"]})
        assert all(map(validator.is_valid, value["examples"]))
        assert ("none" in value["examples"]) == validator.is_valid("none")
