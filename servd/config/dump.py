"""Prints a configuration as TOML or YAML with masked secrets, and the commented starter."""

from __future__ import annotations

import io
import re
from typing import Any

import tomli_w
from pydantic import BaseModel
from ruamel.yaml import YAML

from servd.config.model import DaemonConfig
from servd.config.model_paths import table_at
from servd.config.service import Service
from servd.config.tree import Path
from servd.config.unsupported_keys import LATER_SERVICE, LATER_TOP

Format = str
"""`toml` or `yaml`."""


def to_text(values: dict[str, Any], form: Format) -> str:
    """Returns `values` as TOML or YAML. Raises ValueError for a null in TOML."""
    if form == "toml":
        _refuse_null(values, "")
        return tomli_w.dumps(_lists(values))
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(_lists(values), stream)
    return stream.getvalue()


def escaped(value: Any) -> Any:
    """Returns values with each dollar that would begin a reference doubled, for a file."""
    if isinstance(value, dict):
        return {key: escaped(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [escaped(item) for item in value]
    is_reference = isinstance(value, str) and ("$$" in value or "${" in value)
    return value.replace("$", "$$") if is_reference else value


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(entry) for key, entry in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _refuse_null(value: Any, path: str) -> None:
    if value is None:
        raise ValueError(f"{path.lstrip('.')} is null, which TOML cannot say")
    if isinstance(value, dict):
        for key, entry in value.items():
            _refuse_null(entry, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_null(item, f"{path}[{index}]")


_EXAMPLES = {"umask": "022"}
_STARTER = """\
# A configuration of servd. `servd check` validates it, `servd --config servd.toml` runs it.

[services.web]
app = {app}
listen = "127.0.0.1:8000"

# Everything below is optional: each key with its default.
"""


def starter(app: str) -> str:
    """Returns a commented configuration for beginners."""
    skipped = {"app", "command", "bento", "listen", "components"}
    lines = [_STARTER.format(app=_inline(app))]
    lines += _commented(Service(app=app), skip=skipped, later=set(LATER_SERVICE))
    lines += ["", "# [daemon]"]
    later = {path[1:] for path in LATER_TOP if path[0] == "daemon"}
    lines += _commented(DaemonConfig(), skip=set(), later=later)
    return "\n".join(lines) + "\n"


def _commented(table: BaseModel, *, skip: set[str], later: set[Path]) -> list[str]:
    dumped = table.model_dump(mode="json")
    lines: list[str] = []
    for name, field in type(table).model_fields.items():
        if name in skip or (name,) in later:
            continue
        value = dumped[name] if dumped[name] is not None else _example(name)
        if isinstance(value, dict) and value:
            value = {key: entry for key, entry in value.items() if (name, key) not in later}
        lines += [f"# {field.description}", f"# {name} = {_inline(value)}"]
    return lines


def _example(name: str) -> Any:
    """Returns a value for a key of a service whose default is None."""
    model = table_at(("services", "web", name))
    return model().model_dump(mode="json") if model is not None else _EXAMPLES[name]


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {_inline(entry)}" for key, entry in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_inline(item) for item in value)}]"
    return tomli_w.dumps({"value": value}).partition(" = ")[2].strip()


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'
