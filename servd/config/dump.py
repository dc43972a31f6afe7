"""Prints the values of a configuration as TOML, YAML or JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import tomli_w
from ruamel.yaml import YAML

from servd.config.find import Format


def to_text(values: dict[str, Any], form: Format) -> str:
    """Returns `values` as TOML, YAML or JSON. Raises ValueError for a null in TOML."""
    if form == "json":
        return json.dumps(_lists(values), indent=2, ensure_ascii=False) + "\n"
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
        raise ValueError(f"{path.lstrip('.')} is null, which TOML cannot express")
    if isinstance(value, dict):
        for key, entry in value.items():
            _refuse_null(entry, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_null(item, f"{path}[{index}]")
