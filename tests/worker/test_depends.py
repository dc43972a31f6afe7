"""Where `servd.depends` finds a dependency, and what it says when it does not."""

from __future__ import annotations

import pytest

from servd.client.depends import DependencyAddress, address_of
from servd.errors import DependencyError


def test_inside_servd_the_address_comes_from_the_daemon() -> None:
    environ = {"SERVD_DEPENDENCIES": '{"api": {"url": "http://api", "uds": "/run/api.sock"}}'}
    assert address_of("api", environ) == DependencyAddress("http://api", "/run/api.sock")


def test_outside_a_variable_says_it() -> None:
    environ = {"SERVD_DEP_MY_API": "http://127.0.0.1:1"}
    assert address_of("my-api", environ) == DependencyAddress("http://127.0.0.1:1")


def test_a_service_is_told_to_depend_on_what_it_asks_for() -> None:
    environ = {"SERVD_SERVICE": "web", "SERVD_DEPENDENCIES": "{}"}
    with pytest.raises(DependencyError, match='"api" is no dependency of the service "web"'):
        address_of("api", environ)


def test_outside_servd_the_error_says_what_to_set() -> None:
    with pytest.raises(DependencyError, match="set SERVD_DEP_API=http"):
        address_of("api", {})
