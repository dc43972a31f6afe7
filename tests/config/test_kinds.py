"""Every key of the model has a kind of change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from servd.config.kinds import DAEMON_KINDS, SERVICE_KINDS, daemon_kind, service_kind
from servd.config.model import Config
from servd.config.service import Service


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key, and for tables every key below it too."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        yield key
        for table in _tables(field.annotation):
            yield from keys_of(table, f"{key}.")


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _tables(inner)


SERVICE_KEYS = list(keys_of(Service))
OTHER_KEYS = [
    key
    for key in keys_of(Config)
    if key != "daemon" and key.partition(".")[0] not in ("services", "defaults")
]


@pytest.mark.parametrize("key", SERVICE_KEYS)
def test_every_key_of_a_service_has_a_kind(key: str) -> None:
    assert service_kind(key) in ("live", "scale", "roll", "rebind", "switch")


@pytest.mark.parametrize("key", OTHER_KEYS)
def test_every_other_key_has_a_kind(key: str) -> None:
    assert daemon_kind(key) in ("live", "restart")


def test_the_tables_name_no_key_that_the_model_lacks() -> None:
    assert set(SERVICE_KINDS) <= set(SERVICE_KEYS)
    assert set(DAEMON_KINDS) <= {*OTHER_KEYS, "services", "defaults"}


def test_a_key_without_a_kind_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(KeyError):
        service_kind("brand_new")
    with pytest.raises(KeyError):
        daemon_kind("brand_new.key")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("workers", "scale"), ("backlog", "live"), ("restart.backoff", "live"),
        ("health.path", "live"), ("watchdog", "live"), ("log.level", "live"),
        ("rollout.max_surge", "live"), ("public_url", "live"), ("timeouts.startup", "live"),
        ("tls.certfile", "live"), ("tls.keyfile", "live"), ("tls.ca_certs", "roll"),
        ("env.NAME", "roll"), ("timeouts.drain", "roll"), ("log.access", "roll"),
        ("tls", "switch"), ("listen", "rebind"), ("app", "roll"), ("command", "roll"),
    ],
)  # fmt: skip
def test_the_kinds_are_those_that_the_readme_promises(key: str, kind: str) -> None:
    assert service_kind(key) == kind
