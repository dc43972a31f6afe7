"""Transports of `servd.depends`: calls carry the caller's identity and deadline; safe retries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from servd.core.context import calling_request

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})
"""Methods whose calls may be retried (RFC 9110, 9.2.2)."""

RETRY_PAUSES_SECONDS = (0.05, 0.2)
"""Pauses before the second and the third attempt."""

MAX_CONNECTIONS = 200
IDLE_SECONDS = 2.0
"""Maximum idle time of a pooled connection: well below the five seconds after which the server
closes it, so that no call meets a closing connection."""

LIMITS = httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=IDLE_SECONDS)

TIMEOUT = httpx.Timeout(60.0, connect=5.0)
"""The default, if neither the call nor the calling request sets a limit."""

_DEFAULT = TIMEOUT.as_dict()

_NO_CONNECTION = (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
"""No connection was made, or a pooled one was closed before the answer began."""


class Call:
    """One call of the dependency `name` at `address`, with the identity and deadline of the caller.
    Raises `httpx.PoolTimeout` after the deadline.
    """

    def __init__(self, name: str, address: str, request: httpx.Request) -> None:
        self.name, self.address, self.request = name, address, request
        self.deadline: float | None = None
        self._own_timeouts: dict[str, Any] = {}
        caller = calling_request.get()
        if caller is None:
            return
        for header, value in caller.handed_on():
            text = header.decode("latin-1")
            request.headers.setdefault(text, value.decode("latin-1"))
        remaining = caller.remaining()
        if remaining is None:
            return
        if remaining <= 0:
            over = f'no time left to call "{name}": the calling request has timed out'
            raise httpx.PoolTimeout(over, request=request)
        self.deadline = time.monotonic() + remaining
        given: dict[str, Any] = request.extensions.get("timeout", _DEFAULT)
        self._own_timeouts = {} if given == _DEFAULT else given

    def attempts(self) -> Iterator[float]:
        """Yields the pause in seconds before each permitted attempt."""
        yield 0.0
        replayable = isinstance(self.request.stream, httpx.ByteStream)
        if self.request.method in IDEMPOTENT and replayable:
            for pause in RETRY_PAUSES_SECONDS:
                remaining = self.remaining()
                if remaining is None or pause < remaining:
                    yield pause

    def remaining(self) -> float | None:
        """Returns the seconds until the deadline; None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def limit_attempt(self) -> None:
        """Limits each step of the next attempt to the remaining time."""
        remaining = self.remaining()
        if remaining is None:
            return
        remaining = max(remaining, 0.001)
        own = {kind: seconds for kind, seconds in self._own_timeouts.items() if seconds is not None}
        self.request.extensions["timeout"] = {
            kind: min(remaining, own.get(kind, remaining)) for kind in _DEFAULT
        }

    def failure(self, error: httpx.TransportError) -> httpx.TransportError:
        """Returns an error of the same type that names the dependency and its address."""
        cause = error.__cause__ or error
        text = str(error) or str(cause) or type(error).__name__
        down = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
        what = "is down" if down else "did not answer"
        return type(error)(f'the dependency "{self.name}" {what} ({self.address}): {text}')


class AsyncDependencyTransport(httpx.AsyncBaseTransport):
    """Sends calls to one dependency. `make` creates the connection pool of the running loop: a pool
    works in one loop only, and tests run one loop after another.
    """

    def __init__(
        self, name: str, address: str, make: Callable[[], httpx.AsyncBaseTransport]
    ) -> None:
        self.name, self.address, self.make = name, address, make
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inner: httpx.AsyncBaseTransport | None = None

    def _pool(self) -> httpx.AsyncBaseTransport:
        loop = asyncio.get_running_loop()
        if self._inner is None or self._loop is not loop:
            self._loop, self._inner = loop, self.make()
        return self._inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Makes the call. Raises `httpx.TransportError` that names the dependency."""
        call = Call(self.name, self.address, request)
        pool = self._pool()
        failed: httpx.TransportError | None = None
        for pause in call.attempts():
            await asyncio.sleep(pause)
            call.limit_attempt()
            try:
                async with asyncio.timeout(call.remaining()):
                    return await pool.handle_async_request(request)
            except _NO_CONNECTION as error:
                failed = error
            except httpx.TransportError as error:
                raise call.failure(error) from error
            except TimeoutError as error:
                late = httpx.ReadTimeout("the calling request has timed out")
                raise call.failure(late) from error
        assert failed is not None
        raise call.failure(failed) from failed

    async def aclose(self) -> None:
        """Closes the pooled connections."""
        if self._inner is not None and self._loop is asyncio.get_running_loop():
            await self._inner.aclose()
        self._inner = None


class DependencyTransport(httpx.BaseTransport):
    """Sends calls of sync code to one dependency."""

    def __init__(self, name: str, address: str, inner: httpx.BaseTransport) -> None:
        self.name, self.address, self.inner = name, address, inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Makes the call. Raises `httpx.TransportError` that names the dependency."""
        call = Call(self.name, self.address, request)
        failed: httpx.TransportError | None = None
        for pause in call.attempts():
            time.sleep(pause)
            call.limit_attempt()
            try:
                return self.inner.handle_request(request)
            except _NO_CONNECTION as error:
                failed = error
            except httpx.TransportError as error:
                raise call.failure(error) from error
        assert failed is not None
        raise call.failure(failed) from failed

    def close(self) -> None:
        """Closes the pooled connections."""
        self.inner.close()
