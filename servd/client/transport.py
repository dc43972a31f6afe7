"""What `servd.depends` does around each call: the request that makes it is carried on, with the
time that it has left; a call that found no connection is made again where that is safe.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from servd.core.context import calling_request

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})
"""Methods whose calls may be made again (RFC 9110, 9.2.2)."""

PAUSES = (0.05, 0.2)
"""Seconds before the second and the third attempt."""

MOST_CONNECTIONS = 200
IDLE_SECONDS = 2.0
"""A pooled connection idle for longer is thrown away: well below the five seconds after which the
other side closes it, so that no call meets a connection that is just being closed."""

LIMITS = httpx.Limits(max_connections=MOST_CONNECTIONS, keepalive_expiry=IDLE_SECONDS)

TIMEOUT = httpx.Timeout(60.0, connect=5.0)
"""Where neither the call nor the request that makes it says anything else."""

_DEFAULT = TIMEOUT.as_dict()

_NO_CONNECTION = (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
"""No connection could be had, or one that was kept turned out to be closed before any answer."""


class Call:
    """One call of the dependency `name`, which is reached at `place`."""

    def __init__(self, name: str, place: str, request: httpx.Request) -> None:
        self.name = name
        self.place = place
        self.request = request
        self.deadline: float | None = None
        self._chosen: dict[str, Any] = {}
        self._carry_on()

    def _carry_on(self) -> None:
        """Hands the identity of the request that makes the call on, and the time that it has left.

        Raises `httpx.PoolTimeout` when it has none.
        """
        caller = calling_request.get()
        if caller is None:
            return
        for header, value in caller.handed_on():
            text = header.decode("latin-1")
            if text not in self.request.headers:
                self.request.headers[text] = value.decode("latin-1")
        remaining = caller.remaining()
        if remaining is None:
            return
        if remaining <= 0:
            raise httpx.PoolTimeout(
                f'no time is left for a call of "{self.name}": the request that makes it is over',
                request=self.request,
            )
        self.deadline = time.monotonic() + remaining
        given: dict[str, Any] = self.request.extensions.get("timeout", _DEFAULT)
        self._chosen = {} if given == _DEFAULT else given

    def attempts(self) -> Iterator[float]:
        """Pauses before each attempt that may be made."""
        yield 0.0
        replayable = isinstance(self.request.stream, httpx.ByteStream)
        if self.request.method in IDEMPOTENT and replayable:
            for pause in PAUSES:
                left = self.left()
                if left is None or pause < left:
                    yield pause

    def left(self) -> float | None:
        """Seconds that the call may still take; None for any number."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def bound(self) -> None:
        """Lets no step of the next attempt take longer than what is left."""
        left = self.left()
        if left is None:
            return
        left = max(left, 0.001)
        self.request.extensions["timeout"] = {
            kind: min(left, _or(self._chosen.get(kind), left)) for kind in _DEFAULT
        }

    def failure(self, error: httpx.TransportError) -> httpx.TransportError:
        """The same error, saying which dependency is meant and how it is reached."""
        cause = error.__cause__ or error
        text = str(error) or str(cause) or type(error).__name__
        down = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
        what = "is down" if down else "did not answer"
        return type(error)(f'the dependency "{self.name}" {what} ({self.place}): {text}')


def _or(given: float | None, otherwise: float) -> float:
    return otherwise if given is None else given


class AsyncDependencyTransport(httpx.AsyncBaseTransport):
    """The way to one dependency. `make` makes a pool of connections; there is one for the loop that
    runs, since none can be used in another loop (tests run one after the other).
    """

    def __init__(self, name: str, place: str, make: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self.name = name
        self.place = place
        self.make = make
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inner: httpx.AsyncBaseTransport | None = None

    def _pool(self) -> httpx.AsyncBaseTransport:
        loop = asyncio.get_running_loop()
        if self._inner is None or self._loop is not loop:
            self._loop, self._inner = loop, self.make()
        return self._inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Makes the call. Raises `httpx.TransportError` that names the dependency."""
        call = Call(self.name, self.place, request)
        pool = self._pool()
        failed: httpx.TransportError | None = None
        for pause in call.attempts():
            await asyncio.sleep(pause)
            call.bound()
            try:
                async with asyncio.timeout(call.left()):
                    return await pool.handle_async_request(request)
            except _NO_CONNECTION as error:
                failed = error
            except httpx.TransportError as error:
                raise call.failure(error) from error
            except TimeoutError as error:
                late = httpx.ReadTimeout("the request that makes the call has no time left")
                raise call.failure(late) from error
        assert failed is not None
        raise call.failure(failed) from failed

    async def aclose(self) -> None:
        """Closes the pooled connections."""
        if self._inner is not None and self._loop is asyncio.get_running_loop():
            await self._inner.aclose()
        self._inner = None


class DependencyTransport(httpx.BaseTransport):
    """As `AsyncDependencyTransport`, for code that is not async."""

    def __init__(self, name: str, place: str, inner: httpx.BaseTransport) -> None:
        self.name = name
        self.place = place
        self.inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Makes the call. Raises `httpx.TransportError` that names the dependency."""
        call = Call(self.name, self.place, request)
        failed: httpx.TransportError | None = None
        for pause in call.attempts():
            time.sleep(pause)
            call.bound()
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
