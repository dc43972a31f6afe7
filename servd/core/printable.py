"""Text from services and clients for a terminal: control characters are escaped."""

from __future__ import annotations

import re
from typing import Any

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters except tab and newline, and those that change the direction of text."""


def visible(value: Any) -> Any:
    """Returns a value of JSON with the control characters of its texts escaped."""
    if isinstance(value, str):
        return _CONTROLS.sub(_escaped, value) if _CONTROLS.search(value) else value
    if isinstance(value, list | tuple):
        return [visible(item) for item in value]
    if isinstance(value, dict):
        return {visible(name): visible(item) for name, item in value.items()}
    return value


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
