"""Clients for dependencies, over the dependency's unix socket where it has one.

Inside servd the address comes from SERVD_DEPENDENCIES; outside (unit tests, `uvicorn main:app`)
from the same variable set by hand, or from `SERVD_DEP_TOKENIZER=http://127.0.0.1:8001`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from servd.core.errors import DependencyError
from servd.wire.names import DEPENDENCIES, DEPENDENCY_PREFIX, SERVICE

if TYPE_CHECKING:
    from httpx import AsyncClient, Client


@dataclass(frozen=True, slots=True)
class DependencyAddress:
    """How a dependency is reached: a base URL, and a unix socket to reach it through."""

    url: str
    uds: str | None = None

    @property
    def place(self) -> str:
        """The address as people write it."""
        return f"unix:{self.uds}" if self.uds else self.url


def address_of(name: str, environ: Mapping[str, str]) -> DependencyAddress:
    """The address of the dependency `name`.

    Raises `DependencyError` with what to set or to write when it is not known.
    """
    variable = _variables(name)[0]
    if url := environ.get(variable):
        return DependencyAddress(url)
    try:
        known = json.loads(environ.get(DEPENDENCIES) or "{}")
    except ValueError:
        raise DependencyError(f"{DEPENDENCIES} is not JSON") from None
    if name in known:
        return DependencyAddress(known[name]["url"], known[name].get("uds"))
    if service := environ.get(SERVICE):
        raise DependencyError(
            f'"{name}" is no dependency of the service "{service}": add it to its depends_on'
        )
    raise DependencyError(
        f'where "{name}" is, is not known outside servd: set {variable}=http://127.0.0.1:PORT,'
        f" or {DEPENDENCIES}"
    )


@cache
def _variables(name: str) -> tuple[str, ...]:
    """What the address of the dependency `name` is found by."""
    variable = DEPENDENCY_PREFIX + name.upper().replace("-", "_").replace(".", "_")
    return variable, DEPENDENCIES, SERVICE


@cache
def _address(name: str, *texts: str | None) -> DependencyAddress:
    """The address that these values of the variables stand for."""
    pairs = zip(_variables(name), texts, strict=True)
    return address_of(name, {variable: text for variable, text in pairs if text is not None})


def depends(name: str) -> AsyncClient:
    """The client for the dependency `name`: one per process, with pooled connections.

    Calls carry the id and the trace headers of the request that makes them, and take no longer than
    it has left (`timeouts.request`). Idempotent ones are made again, twice at most, when there was
    no connection. Raises `DependencyError` when the dependency is not known; a call raises
    `httpx.TransportError` that names it when it is down.
    """
    return _client(name, _address(name, *map(os.environ.get, _variables(name))))


@cache
def _client(name: str, address: DependencyAddress) -> AsyncClient:
    transport = _transport()

    def pool() -> Any:
        return transport.httpx.AsyncHTTPTransport(uds=address.uds, limits=transport.LIMITS)

    client: AsyncClient = transport.httpx.AsyncClient(
        base_url=address.url,
        transport=transport.AsyncDependencyTransport(name, address.place, pool),
        timeout=transport.TIMEOUT,
    )
    return client


def depends_sync(name: str) -> Client:
    """As `depends`, for code that is not async. The client may be used by several threads."""
    return _sync_client(name, _address(name, *map(os.environ.get, _variables(name))))


@cache
def _sync_client(name: str, address: DependencyAddress) -> Client:
    transport = _transport()
    inner = transport.httpx.HTTPTransport(uds=address.uds, limits=transport.LIMITS)
    client: Client = transport.httpx.Client(
        base_url=address.url,
        transport=transport.DependencyTransport(name, address.place, inner),
        timeout=transport.TIMEOUT,
    )
    return client


def _transport() -> Any:
    """The module that needs httpx, which an environment of its own may not have."""
    try:
        from servd.client import transport
    except ImportError:
        raise DependencyError("servd.depends needs httpx: install it in this environment") from None
    return transport
