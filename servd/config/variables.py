"""Tables of environment variables in the configuration."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from servd.config.scalars import text_without_null, wrong


def _variable_name(name: object) -> object:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise wrong("invalid name of an environment variable")
    return name


def environment_text(value: object) -> object:
    """Returns numbers and booleans of an `env` table as text for the environment."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else text_without_null(value)


Environment = Annotated[
    dict[
        Annotated[str, BeforeValidator(_variable_name)],
        Annotated[str, BeforeValidator(environment_text)],
    ],
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {
                "anyOf": [{"type": kind} for kind in ("string", "number", "boolean")]
            },
        }
    ),
]
