"""Event streams that are open, so that the end of a worker can end them as their protocol has it.

Whoever reads a `text/event-stream` (WHATWG HTML, 9.2) takes the end of the response for a reason to
connect again, and a connection that breaks for an error.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

_MEDIA_TYPE = b"text/event-stream"
_END = {"type": "http.response.body", "body": b"", "more_body": False}
_PATIENCE = 0.5
"""Seconds that a client may take to make room for the end of its stream."""


class _Stream:
    """One response that is an event stream."""

    __slots__ = ("ended", "send", "task")

    def __init__(self, send: Any) -> None:
        self.send = send
        self.task = asyncio.current_task()
        self.ended = False


class EventStreams:
    """Pure ASGI: knows which responses are event streams, and changes none."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.open: set[_Stream] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Runs the app, looking at the header of its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stream: _Stream | None = None

        def watched(message: Any) -> Any:  # hands the coroutine through: no cost of a second one
            nonlocal stream
            if message["type"] == "http.response.start" and is_event_stream(message):
                stream = _Stream(send)
                self.open.add(stream)
            return send(message)

        try:
            await self.app(scope, receive, watched)
        except asyncio.CancelledError:
            if stream is None or not stream.ended:
                raise
        finally:
            if stream is not None:
                self.open.discard(stream)

    async def end(self) -> None:
        """Ends every open stream, and with it the code of the app that feeds it."""
        await asyncio.gather(*(self._end(stream) for stream in list(self.open)))

    @staticmethod
    async def _end(stream: _Stream) -> None:
        stream.ended = True
        with contextlib.suppress(Exception):  # a client that is gone needs no end
            await asyncio.wait_for(stream.send(_END), _PATIENCE)
        if stream.task is not None:
            stream.task.cancel()


def is_event_stream(start: Any) -> bool:
    """Whether an `http.response.start` announces an event stream."""
    for name, value in start.get("headers", ()):
        if len(name) == 12 and name.lower() == b"content-type":
            return bool(value.lower().startswith(_MEDIA_TYPE))
    return False
