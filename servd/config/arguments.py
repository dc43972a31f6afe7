"""Arguments of the code of a service: any values that JSON has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, JsonValue, WithJsonSchema


def _plain(value: Any) -> Any:
    """Returns lists and text of their plain types: a parsed file has others."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, str) else value


Arguments = Annotated[
    dict[str, JsonValue], BeforeValidator(_plain), WithJsonSchema({"type": "object"})
]
