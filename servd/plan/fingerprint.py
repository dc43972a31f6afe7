"""Fingerprints of values: equal if everything that is compared is equal."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Set
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
    if isinstance(value, BaseModel):
        return [type(value).__name__, _plain(dict(value))]
    if dataclasses.is_dataclass(value):
        compared = (field.name for field in dataclasses.fields(value) if field.compare)
        return [type(value).__name__, *(_plain(getattr(value, name)) for name in compared)]
    if isinstance(value, Mapping):
        return sorted((str(key), _plain(each)) for key, each in value.items())
    if isinstance(value, Set):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
