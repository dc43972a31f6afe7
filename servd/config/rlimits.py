"""Resource limits of a process in the configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from servd.config.scalars import joined, number_of, shown, wrong

RESOURCES = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice",
    "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
"""Names of getrlimit(2) without the prefix RLIMIT_."""


_MOST = 2**63 - 1
"""Largest number that setrlimit(2) takes of Python; one above it is unlimited."""


def _parse_limits(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise wrong(f"expected a table, got {shown(value)}")
    result: dict[str, int] = {}
    for name, limit in value.items():
        if name not in RESOURCES:
            raise wrong(f"{shown(name)} is not a resource limit: they are {joined(RESOURCES)}")
        number = limit if type(limit) is int else number_of(limit)
        if limit == "unlimited":
            result[name] = -1
        elif number is None or number != int(number) or number < 0:
            raise wrong(f'the limit {name} must be a number or "unlimited", not {shown(limit)}')
        else:
            result[name] = int(number)
            if result[name] > _MOST:
                raise wrong(f'the limit {name} can be {_MOST}, or "unlimited"')
    return result


_NUMBER = {"type": "integer", "minimum": 0}
ResourceLimits = Annotated[
    dict[str, int],
    PlainValidator(_parse_limits),
    PlainSerializer(lambda limits: {k: "unlimited" if n < 0 else n for k, n in limits.items()}),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"enum": list(RESOURCES)},
            "additionalProperties": {"anyOf": [_NUMBER, {"enum": ["unlimited"]}]},
        }
    ),
]
"""Limit of each resource, soft and hard; -1 is unlimited."""
