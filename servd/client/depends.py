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
from types import ModuleType
from typing import TYPE_CHECKING, Any

from servd.errors import DependencyError
from servd.wire.names import DEPENDENCIES, DEPENDENCY_PREFIX, SERVICE
from servd.worker.asgi.request_context import handed_on

if TYPE_CHECKING:
    from httpx import AsyncClient, Client, Request

MOST_CONNECTIONS = 200
IDLE_SECONDS = 2.0
"""A pooled connection idle for longer is thrown away: well below the five seconds after which the
other side closes it, so that no call meets a connection that is just being closed."""


@dataclass(frozen=True, slots=True)
class DependencyAddress:
    """How a dependency is reached: a base URL, and a unix socket to reach it through."""

    url: str
    uds: str | None = None


def address_of(name: str, environ: Mapping[str, str]) -> DependencyAddress:
    """The address of the dependency `name`.

    Raises `DependencyError` with what to set or to write when it is not known.
    """
    variable = DEPENDENCY_PREFIX + name.upper().replace("-", "_").replace(".", "_")
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
def depends(name: str) -> AsyncClient:
    """The client for the dependency `name`: one per process, with pooled connections.

    Calls carry the id and the trace headers of the request that makes them. Raises
    `DependencyError` when the dependency is not known.
    """
    httpx: Any = _httpx()
    address = address_of(name, os.environ)
    limits = httpx.Limits(max_connections=MOST_CONNECTIONS, keepalive_expiry=IDLE_SECONDS)

    async def carry(request: Request) -> None:
        _carry_on(request)

    client: AsyncClient = httpx.AsyncClient(
        base_url=address.url,
        transport=httpx.AsyncHTTPTransport(uds=address.uds, limits=limits),
        event_hooks={"request": [carry]},
    )
    return client


@cache
def depends_sync(name: str) -> Client:
    """As `depends`, for code that is not async. The client may be used by several threads."""
    httpx: Any = _httpx()
    address = address_of(name, os.environ)
    limits = httpx.Limits(max_connections=MOST_CONNECTIONS, keepalive_expiry=IDLE_SECONDS)
    client: Client = httpx.Client(
        base_url=address.url,
        transport=httpx.HTTPTransport(uds=address.uds, limits=limits),
        event_hooks={"request": [_carry_on]},
    )
    return client


def _carry_on(request: Request) -> None:
    for header, value in handed_on.get():
        text = header.decode("latin-1")
        if text not in request.headers:
            request.headers[text] = value.decode("latin-1")


def _httpx() -> ModuleType:
    try:
        import httpx
    except ImportError:
        raise DependencyError("servd.depends needs httpx: install it in this environment") from None
    return httpx
