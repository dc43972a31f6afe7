"""Transports of `servd.depends` to services of the same cluster, over handles of Ray Serve.

A call whose answer is read at once goes as one message there and one back, within its limit of time
as a whole; one that streams (`client.stream(...)`) as a message for each piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from typing import Any

import httpx

from servd.client.transport import AsyncDependencyTransport, DependencyTransport

STREAMS = "servd.streams"
"""The extension of a request whose answer is not read at once."""

ANSWER, STREAM = "servd_answer", "servd_stream"
"""Methods of a replica."""


class HandleClient(httpx.AsyncClient):
    """Tells its transport whether the answer streams."""

    async def send(self, request: httpx.Request, *, stream: bool = False, **given: Any) -> Any:
        """Sends a request, as httpx does."""
        request.extensions = {**request.extensions, STREAMS: stream}
        return await super().send(request, stream=stream, **given)


class SyncHandleClient(httpx.Client):
    """Tells its transport whether the answer streams."""

    def send(self, request: httpx.Request, *, stream: bool = False, **given: Any) -> Any:
        """Sends a request, as httpx does."""
        request.extensions = {**request.extensions, STREAMS: stream}
        return super().send(request, stream=stream, **given)


def client_of(name: str, label: str, *, sync: bool, **given: Any) -> Any:
    """Returns the client for the dependency `name`, for sync code or not."""
    if sync:
        return SyncHandleClient(
            transport=DependencyTransport(name, label, HandleTransport(name)), **given
        )
    make = functools.partial(AsyncHandleTransport, name)
    return HandleClient(transport=AsyncDependencyTransport(name, label, make), **given)


@cache
def handle_of(service: str, method: str) -> Any:
    """Returns the handle for a method of a service. Raises `httpx.ConnectError`."""
    from ray.serve import get_deployment_handle
    from ray.serve.exceptions import RayServeException

    try:
        handle = get_deployment_handle(service, service)
    except RayServeException as error:
        raise httpx.ConnectError(f"Ray Serve has no such application: {error}") from error
    return handle.options(method_name=method, stream=method == STREAM)


def call_of(request: httpx.Request, body: bytes) -> tuple[Any, ...]:
    """Returns a request as it travels (`servd.engines.ray.exchange.HandleCall`)."""
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    return (request.method, request.url.raw_path, headers, body)


def failure(error: Exception) -> httpx.TransportError:
    """Returns what a failed call means to a client of HTTP. Where the replica has ended, the call
    may be made again if it is idempotent.
    """
    from ray.exceptions import RayError
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

    text = f"{type(error).__name__}: {error}"
    if isinstance(error, BackPressureError | DeploymentUnavailableError):
        return httpx.ConnectError(text)
    if isinstance(error, RayError):
        return httpx.ReadError(text)
    return httpx.RemoteProtocolError(text)


def _limit(request: httpx.Request) -> float | None:
    limits: dict[str, float | None] = request.extensions.get("timeout", {})
    return limits.get("read")


def _late(limit: float | None) -> httpx.ReadTimeout:
    return httpx.ReadTimeout(f"no answer within {limit:g} s" if limit else "no answer in time")


class AsyncHandleTransport(httpx.AsyncBaseTransport):
    """Sends requests to one service."""

    def __init__(self, service: str) -> None:
        self.service = service

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Makes the call. Raises `httpx.TransportError`."""
        call = call_of(request, await request.aread())
        if not request.extensions.get(STREAMS):
            response = handle_of(self.service, ANSWER).remote(call)
            status, headers, body = await self._first(response, response, _limit(request))
            return httpx.Response(status, headers=headers, content=body)
        response = handle_of(self.service, STREAM).remote(call)
        pieces = response.__aiter__()
        status, headers = await self._first(response, pieces.__anext__(), _limit(request))
        return httpx.Response(status, headers=headers, stream=_Body(response, pieces))

    async def _first(self, response: Any, result: Any, limit: float | None) -> Any:
        """Waits for a result. Whoever does not wait to the end cancels the call."""
        try:
            async with asyncio.timeout(limit):
                return await result
        except TimeoutError as error:
            response.cancel()
            raise _late(limit) from error
        except Exception as error:
            raise failure(error) from error
        except BaseException:
            response.cancel()
            raise


class _Body(httpx.AsyncByteStream):
    """The body of an answer that streams."""

    def __init__(self, response: Any, pieces: Any) -> None:
        self._response, self._pieces = response, pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._pieces:
                yield piece
        except httpx.TransportError:
            raise
        except Exception as error:
            raise failure(error) from error

    async def aclose(self) -> None:
        """Has the app of an answer that was not read to its end stop."""
        self._response.cancel()


class HandleTransport(httpx.BaseTransport):
    """Sends requests of sync code to one service."""

    def __init__(self, service: str) -> None:
        self.service = service

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Makes the call. Raises `httpx.TransportError`."""
        call = call_of(request, request.read())
        limit = _limit(request)
        if not request.extensions.get(STREAMS):
            response = handle_of(self.service, ANSWER).remote(call)
            status, headers, body = _waited(response, lambda: response.result(timeout_s=limit))
            return httpx.Response(status, headers=headers, content=body)
        response = handle_of(self.service, STREAM).remote(call)
        pieces = iter(response)
        status, headers = _waited(response, lambda: next(pieces))
        return httpx.Response(status, headers=headers, stream=_SyncBody(response, pieces))


def _waited(response: Any, wait: Callable[[], Any]) -> Any:
    try:
        return wait()
    except TimeoutError as error:
        response.cancel()
        raise _late(None) from error
    except Exception as error:
        raise failure(error) from error


class _SyncBody(httpx.SyncByteStream):
    """The body of an answer that streams, for sync code."""

    def __init__(self, response: Any, pieces: Any) -> None:
        self._response, self._pieces = response, pieces

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                piece = next(self._pieces)
            except StopIteration:
                return
            except Exception as error:
                raise failure(error) from error
            yield piece

    def close(self) -> None:
        """Has the app of an answer that was not read to its end stop."""
        with contextlib.suppress(Exception):
            self._response.cancel()
