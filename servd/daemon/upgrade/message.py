"""Messages between the two daemons of an upgrade: one JSON object per line."""

from __future__ import annotations

import json
from typing import Any

LONGEST_LINE_BYTES = 1 << 22


def parse_message(line: bytes) -> dict[str, Any]:
    """Returns the message in a line. Raises ValueError for anything else."""
    try:
        message = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError(f"{type(message).__name__} is not an object")
    return message
