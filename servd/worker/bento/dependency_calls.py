"""What BentoML lacks in calls of dependencies (`bentoml.depends`): the request id of the caller,
and ends of streams that nobody reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

from servd.worker.asgi.request import REQUEST_ID, current

_NAME = REQUEST_ID.decode()


def complete_calls() -> None:
    """Completes BentoML's clients and streams, once in a process, before it handles requests."""
    from _bentoml_impl.client.http import HTTPClient
    from _bentoml_impl.server.app import ServiceAppFactory
    from bentoml._internal.marshal.dispatcher import CorkDispatcher

    HTTPClient._build_request = _identified(HTTPClient._build_request)
    CorkDispatcher.controller = _of_no_request(CorkDispatcher.controller)
    ServiceAppFactory._to_thread = _ending(ServiceAppFactory._to_thread)
    with contextlib.suppress(ImportError):  # before BentoML 1.4.29
        from _bentoml_impl.client.proxy2 import AsyncClient

        AsyncClient._build_payload = _identified(AsyncClient._build_payload)
        AsyncClient._parse_stream_response = _closing(AsyncClient._parse_stream_response)


def _identified(build: Any) -> Any:
    """Returns a method that adds the id of the calling request, as `build` adds the trace."""

    @functools.wraps(build)
    def identified(
        self: Any, endpoint: Any, args: Any, kwargs: Any, headers: MutableMapping[str, str]
    ) -> Any:
        request = current.get()
        if request is not None and _NAME not in {name.lower() for name in headers}:
            headers[_NAME] = request.id
        return build(self, endpoint, args, kwargs, headers)

    return identified


def _closing(parse: Any) -> Any:
    """Fault: BentoML leaves the connection open when a stream is not read to its end. The
    dependency, whose client never seems to go, generates it forever.
    """

    @functools.wraps(parse)
    async def closing(self: Any, endpoint: Any, response: Any) -> AsyncIterator[Any]:
        try:
            async with contextlib.aclosing(parse(self, endpoint, response)) as parts:
                async for part in parts:
                    yield part
        finally:
            response.close()

    return closing


def _ending(run_in_thread: Any) -> Any:
    """Fault: the exception of the cancelled task of a stream is part of a cycle, so that only the
    garbage collector closes the generator of a stream in threads, some time after its client has
    gone.
    """

    @functools.wraps(run_in_thread)
    async def ending(self: Any, function: Any, *args: Any, **options: Any) -> Any:
        try:
            return await run_in_thread(self, function, *args, **options)
        except asyncio.CancelledError:
            if function is next:
                import anyio

                with anyio.CancelScope(shield=True):
                    await run_in_thread(self, args[0].close)
            raise

    return ending


def _of_no_request(control: Any) -> Any:
    """A batch belongs to several requests: calls from it have the id of none. Its tasks would have
    that of the first request that the worker ever had.
    """

    @functools.wraps(control)
    async def controller(self: Any) -> None:
        current.set(None)
        await control(self)

    return controller
