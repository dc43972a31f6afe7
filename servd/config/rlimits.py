"""Resource limits of a process in the configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

from servd.config.scalars import joined, number_of, shown, wrong

RESOURCES = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice",
    "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
"""Names of getrlimit(2) without the prefix RLIMIT_."""


_MOST = 2**63 - 1
"""Largest number that Python passes to setrlimit(2); the next one is unlimited."""


def _resource(name: object) -> object:
    if name not in RESOURCES:
        raise wrong(f"unknown resource limit: expected {joined(RESOURCES)}")
    return name


def _limit(value: object) -> int:
    number = value if type(value) is int else number_of(value)
    if value in ("unlimited", "infinity"):
        return -1
    if number is None or number != int(number) or number < 0:
        raise wrong(f'expected a whole number or "unlimited", got {shown(value)}')
    if number > _MOST:
        raise wrong(f'must be at most {_MOST}, or "unlimited"')
    return int(number)


_NUMBER = {"type": "integer", "minimum": 0}
ResourceLimits = Annotated[
    dict[Annotated[str, BeforeValidator(_resource)], Annotated[int, PlainValidator(_limit)]],
    PlainSerializer(lambda limits: {k: "unlimited" if n < 0 else n for k, n in limits.items()}),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"enum": list(RESOURCES)},
            "additionalProperties": {"anyOf": [_NUMBER, {"enum": ["unlimited", "infinity"]}]},
        }
    ),
]
"""Limit of each resource, soft and hard; -1 is unlimited."""
