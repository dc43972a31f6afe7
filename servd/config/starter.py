"""The commented configuration that `servd init` writes: each key with its default."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import tomli_w
from pydantic import BaseModel

from servd.config.find import Format
from servd.config.find_app import FoundApp
from servd.config.model import AdminConfig, Config, DaemonConfig, Hook
from servd.config.service import Service
from servd.core.quick_dataclass import dataclass

LISTEN = "127.0.0.1:8000"
"""Where the service of the configuration listens."""

_RUNNERS = {"app", "command", "bento", "external"}
_OF_COMMANDS = {"ready", "activation", "stop_signal", "stop_command"}
_OF_APPS = {"factory", "interface", "preload"}
_ELSEWHERE = {
    *_RUNNERS,
    *_OF_COMMANDS,
    "listen",
    "components",
}


@dataclass(frozen=True, slots=True)
class _Block:
    """A table: its comment, path, required keys, and the model of its other keys."""

    says: str
    path: tuple[str, ...]
    needs: dict[str, Any]
    model: type[BaseModel]
    keys: tuple[str, ...]
    active: bool = False


def starter(app: str | FoundApp, form: Format, schema: str = "") -> str:
    """Returns a configuration for beginners that runs `app`. Each commented line can be used as it
    is: keys have their defaults, other tables are examples. JSON has no comments. `schema` is where
    editors find the schema.
    """
    blocks = list(_blocks(FoundApp(app) if isinstance(app, str) else app))
    if form == "json":
        return json.dumps({"services": {"web": blocks[0].needs}}, indent=2) + "\n"
    write = _toml if form == "toml" else _yaml
    name = f"servd.{form}"
    mark = "#:schema " if form == "toml" else "# yaml-language-server: $schema="
    head = [
        *([mark + schema] if schema else []),
        f"# servd configuration. `servd check` validates it, `servd --config {name}` runs it.",
        "# Commented lines are optional: keys with their defaults, and examples.",
        "",
    ]
    lines = [line for block in blocks for line in write(block)]
    top = [*_described(Config, ("version", "include"), form, 0), ""]
    return "\n".join([*head, *top, *lines[:-1]]) + "\n"


def _blocks(app: FoundApp) -> Iterator[_Block]:
    web: dict[str, Any] = {app.key: app.target, "listen": LISTEN}
    if app.is_factory:
        web["factory"] = True
    left_out = {*_ELSEWHERE, *web, *(_OF_APPS if app.key == "bento" else ())}
    shared = tuple(key for key in Service.model_fields if key not in left_out)
    yield _Block("", ("services", "web"), web, Service, shared, active=True)
    yield _Block(
        "A service that runs a program. The keys above that are not about apps work here too.",
        ("services", "worker"),
        {"command": ["sleep", "infinity"]},
        Service,
        tuple(key for key in Service.model_fields if key in _OF_COMMANDS),
    )
    yield _Block(
        "A BentoML service with settings for its components.",
        ("services", "model"),
        {"bento": "service:Model"},
        Service,
        ("components",),
    )
    says = "Default values for every service: any key above."
    yield _Block(says, ("defaults",), {"workers": 1}, Service, ())
    for name, model in (("daemon", DaemonConfig), ("admin", AdminConfig)):
        yield _Block(f"{_says(Config, name)}", (name,), {}, model, tuple(model.model_fields))
    hook = {"on": ["crash_loop"], "command": ["sh", "-c", "cat >> crashes.jsonl"]}
    yield _Block(_says(Config, "hooks"), ("hooks",), hook, Hook, ("url", "timeout"))


def _says(model: type[BaseModel], key: str) -> str:
    return str(model.model_fields[key].description)


def defaults_of(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the default of each key as a file spells it."""
    found = model.model_construct().model_dump(mode="json", warnings=False)
    return {key: _NONE.get(key, False) if value is None else value for key, value in found.items()}


_NONE = {"umask": "none", "listen": "", "metrics": ""}
"""Values of keys without a value; the others are tables: false."""


def _described(
    model: type[BaseModel], keys: Sequence[str], form: Format, indent: int
) -> Iterator[str]:
    values = defaults_of(model)
    for key in keys:
        yield f"# {_says(model, key)}{_example(model, key, form)}"
        yield "# " + " " * indent + _pair(key, values[key], form)


def _example(model: type[BaseModel], key: str, form: Format) -> str:
    """Returns the keys of a table that is off by default."""
    if defaults_of(model)[key] is not False or model.model_fields[key].annotation is bool:
        return ""
    inner = next(
        each
        for each in getattr(model.model_fields[key].annotation, "__args__", ())
        if isinstance(each, type) and issubclass(each, BaseModel)
    )
    return f" Keys: {_inline(defaults_of(inner), form)}"


def _toml(block: _Block) -> Iterator[str]:
    mark = "" if block.active else "# "
    name = ".".join(block.path)
    if block.says:
        yield f"# {block.says}"
    yield f"{mark}[[{name}]]" if name == "hooks" else f"{mark}[{name}]"
    for key, value in block.needs.items():
        yield mark + _pair(key, value, "toml")
    yield from _described(block.model, block.keys, "toml", 0)
    yield ""


def _yaml(block: _Block) -> Iterator[str]:
    mark = "" if block.active else "# "
    if block.says:
        yield f"# {block.says}"
    *outer, name = block.path
    if outer and block.active:
        yield f"{outer[0]}:"
    inside = "  " * len(block.path)
    yield f"{mark}{'  ' * len(outer)}{name}:"
    item = "- " if name == "hooks" else ""
    for key, value in block.needs.items():
        yield f"{mark}{inside}{item}{_pair(key, value, 'yaml')}"
        inside, item = inside + " " * len(item), ""
    yield from _described(block.model, block.keys, "yaml", len(inside))
    yield ""


def _pair(key: str, value: Any, form: Format) -> str:
    return f"{key} = {_inline(value, form)}" if form == "toml" else f"{key}: {_inline(value, form)}"


def _inline(value: Any, form: Format) -> str:
    if form == "yaml":
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {_inline(entry, form)}" for key, entry in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_inline(item, form) for item in value)}]"
    return tomli_w.dumps({"value": value}).partition(" = ")[2].strip()


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'
