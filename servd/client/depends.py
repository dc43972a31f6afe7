"""HTTP clients for dependencies, over the dependency's unix socket if it has one. servd sets the
addresses in SERVD_DEPENDENCIES. Outside servd (unit tests, `uvicorn main:app`) set it manually, or
set `SERVD_DEP_TOKENIZER=http://127.0.0.1:8001`.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from servd.core.client_tls import client_context
from servd.core.errors import DependencyError
from servd.core.origin import origin_of
from servd.core.quick_dataclass import dataclass
from servd.wire.names import DEPENDENCIES, DEPENDENCY_PREFIX, SERVICE

if TYPE_CHECKING:
    from httpx import AsyncClient, Client


@dataclass(frozen=True, slots=True)
class DependencyAddress:
    """The base URL of a dependency, its unix socket if it has one, and for https:// the files that
    verify it and that the client shows of itself. `engine` names the engine whose own transport
    reaches it (`servd.engines`).
    """

    url: str
    uds: str | None = None
    ca_certs: str = ""
    certfile: str = ""
    keyfile: str = ""
    engine: str = ""

    @property
    def label(self) -> str:
        """The address for error messages."""
        if self.engine:
            return self.engine
        return f"unix:{self.uds}" if self.uds else origin_of(self.url)


def address_of(name: str, environ: Mapping[str, str]) -> DependencyAddress:
    """Returns the address of a dependency. Raises `DependencyError` with the variable to set."""
    variable = _variables(name)[0]
    if url := environ.get(variable):
        return DependencyAddress(url)
    try:
        known = json.loads(environ.get(DEPENDENCIES) or "{}")
    except ValueError:
        raise DependencyError(f"{DEPENDENCIES} is not JSON") from None
    if name in known:
        fields = DependencyAddress.__dataclass_fields__
        return DependencyAddress(**{k: v for k, v in known[name].items() if k in fields})
    if service := environ.get(SERVICE):
        raise DependencyError(
            f'"{name}" is not a dependency of service "{service}": add it to depends_on'
        )
    raise DependencyError(
        f'unknown address of "{name}" outside servd: set {variable}=http://127.0.0.1:PORT'
        f" or {DEPENDENCIES}"
    )


@cache
def _variables(name: str) -> tuple[str, ...]:
    """Returns the environment variables that determine the address of the dependency `name`."""
    variable = DEPENDENCY_PREFIX + name.upper().replace("-", "_").replace(".", "_")
    return variable, DEPENDENCIES, SERVICE


@cache
def _address(name: str, *texts: str | None) -> DependencyAddress:
    pairs = zip(_variables(name), texts, strict=True)
    return address_of(name, {variable: text for variable, text in pairs if text is not None})


def depends(name: str) -> AsyncClient:
    """Returns the client for the dependency `name`: one per process, with pooled connections.

    Calls carry the id and the trace headers of the calling request, within its remaining time
    (`timeouts.request`). Idempotent calls are retried at most twice if no connection was made.
    Raises `DependencyError` if the dependency is unknown; a call raises `httpx.TransportError`
    that names the dependency if it is down.
    """
    address = _address(name, *map(os.environ.get, _variables(name)))
    client: AsyncClient = _client(name, address, sync=False)
    return client


def depends_sync(name: str) -> Client:
    """Returns the client for synchronous code, otherwise as `depends`. Threads may share it."""
    address = _address(name, *map(os.environ.get, _variables(name)))
    client: Client = _client(name, address, sync=True)
    return client


@cache
def _client(name: str, address: DependencyAddress, *, sync: bool) -> Any:
    """Returns the client. Raises `DependencyError` if httpx is not installed, or a certificate
    cannot be used.
    """
    try:
        import httpx

        from servd.client import transport
    except ImportError:
        raise DependencyError("servd.depends needs httpx: install it in this environment") from None
    common: dict[str, Any] = {"base_url": address.url, "timeout": transport.TIMEOUT}
    if address.engine:
        engine = importlib.import_module(f"servd.engines.{address.engine}.transport")
        return engine.client_of(name, address.label, sync=sync, **common)
    pool: dict[str, Any] = {"uds": address.uds, "limits": transport.LIMITS}
    if address.url.startswith("https:"):
        try:
            pool["verify"] = client_context(address.ca_certs, address.certfile, address.keyfile)
        except (OSError, ValueError) as error:
            raise DependencyError(
                f'the certificates for "{name}" cannot be used: {error}'
            ) from None
    if sync:
        inner = httpx.HTTPTransport(**pool)
        sender = transport.DependencyTransport(name, address.label, inner)
        return httpx.Client(transport=sender, **common)
    make = functools.partial(httpx.AsyncHTTPTransport, **pool)
    made = transport.AsyncDependencyTransport(name, address.label, make)
    return httpx.AsyncClient(transport=made, **common)
