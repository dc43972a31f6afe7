"""One request to an app that no server has read: a call over a handle, or a health probe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

logger = logging.getLogger("servd.worker")

_AHEAD = 8
"""Messages that an app may be ahead of whoever reads its answer."""

_FAILED = {"status": 500, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}

_background: set[asyncio.Task[None]] = set()
"""Apps that still work after their answers, such as background tasks."""

Header = tuple[bytes, bytes]


class HandleCall(NamedTuple):
    """A request, as it travels to a replica. `target` is the path with its query."""

    method: str
    target: bytes
    headers: list[Header]
    body: bytes

    def scope(self) -> dict[str, Any]:
        """Returns its ASGI scope."""
        path, _, query = self.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": unquote_to_bytes(path).decode(errors="replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self.headers,
            "client": None,
            "server": None,
        }


class Head(NamedTuple):
    """The beginning of an answer."""

    status: int
    headers: list[Header]


class WholeAnswer(NamedTuple):
    """A whole answer."""

    status: int
    headers: list[Header]
    body: bytes


class _Client:
    """The client of the app: `send` and `receive`. `disconnected` has the name that servd's
    middleware knows from Uvicorn.
    """

    def __init__(self, body: bytes) -> None:
        self.disconnected = self.begun = False
        self.messages: asyncio.Queue[Any] = asyncio.Queue(_AHEAD)
        self.gone = asyncio.Event()
        self._body: bytes | None = body

    async def receive(self) -> Any:
        """Gives the body, then waits for the end."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Hands a message on."""
        self.begun = True
        await self.messages.put(message)

    async def run(self, app: Any, scope: dict[str, Any]) -> None:
        """Runs the app. One that fails before it answers gives 500, as under Uvicorn."""
        try:
            await app(scope, self.receive, self.send)
        except Exception:
            if self.begun:
                raise
            logger.exception("the app failed")
        finally:
            if not self.begun:
                await self.send({"type": "http.response.start", **_FAILED})
                await self.send({"type": "http.response.body", "body": b"Internal Server Error"})
            await self.messages.put(None)


async def stream(app: Any, call: HandleCall) -> AsyncGenerator[Head | bytes, None]:
    """Yields the head of the answer, then the pieces of its body as the app sends them. An app that
    fails in the middle raises its exception. Leaving the iteration before the end cancels the app;
    what it does after its answer goes on.
    """
    client = _Client(call.body)
    task = asyncio.create_task(client.run(app, call.scope()))
    is_whole = False
    try:
        while (message := await client.messages.get()) is not None:
            if message["type"] == "http.response.start":
                yield Head(message["status"], _pairs(message.get("headers", ())))
            elif message["type"] == "http.response.body":
                is_whole = not message.get("more_body", False)
                if message.get("body"):
                    yield bytes(message["body"])
                if is_whole:
                    return
        await task
        raise RuntimeError("the app did not complete its answer")
    finally:
        client.gone.set()
        if is_whole:
            _background.add(task)
            task.add_done_callback(_background.discard)
        else:
            client.disconnected = True
            task.cancel()
            await asyncio.wait({task})


async def answer(app: Any, call: HandleCall) -> WholeAnswer:
    """Returns the whole answer of the app."""
    head, pieces = Head(500, []), []
    async with contextlib.aclosing(stream(app, call)) as parts:
        async for part in parts:
            if isinstance(part, Head):
                head = part
            else:
                pieces.append(part)
    return WholeAnswer(head.status, head.headers, b"".join(pieces))


async def probe(app: Any, path: str, host: str) -> int:
    """Returns the status with which the app answers a GET request."""
    call = HandleCall("GET", path.encode(), [(b"host", host.encode())], b"")
    async with contextlib.aclosing(stream(app, call)) as parts:
        async for part in parts:
            if isinstance(part, Head):
                return part.status
    raise AssertionError("every answer has a head")


def _pairs(headers: Iterable[tuple[bytes, bytes]]) -> list[Header]:
    return [(bytes(name), bytes(value)) for name, value in headers]
