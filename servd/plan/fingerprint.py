"""Fingerprints of values: equal if everything that is compared is equal."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Hashable, Mapping, Set
from typing import Any

from pydantic import BaseModel


def fingerprint(key: bytes, *values: Any) -> str:
    """Returns the fingerprint of plans, configurations and plain values. Without the secret `key`,
    the values cannot be guessed by trial.
    """
    text = repr([_plain(value) for value in values])
    return hashlib.blake2b(text.encode(errors="surrogatepass"), key=key, digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    """Returns the value as lists and scalars, whose text is complete and in a fixed order."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, BaseModel):
        return [type(value).__name__, _plain(dict(value))]
    kind: type = type(value)
    if (names := _compared(kind)) is not None:
        return [kind.__name__, *(_plain(getattr(value, name)) for name in names)]
    if isinstance(value, Mapping):
        return sorted((str(key), _plain(each)) for key, each in value.items())
    if isinstance(value, Set):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


@functools.cache
def _compared(kind: Hashable) -> tuple[str, ...] | None:
    """Returns the names of what is compared of a dataclass."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(field.name for field in dataclasses.fields(kind) if field.compare)
