"""One event for every request, written when its last byte has been handed over."""

from __future__ import annotations

import json
import time
from typing import Any

from servd.wire.names import EVENT_MARK
from servd.worker.asgi.request_context import request_id_of
from servd.worker.events import EventWriter

_quoted = json.encoder.encode_basestring_ascii


class AccessLog:
    """Pure ASGI; field names are OpenTelemetry's. WebSockets and the lifespan pass untouched."""

    def __init__(self, app: Any, writer: EventWriter, skip_paths: tuple[str, ...]) -> None:
        self.app = app
        self.writer = writer
        self.skip_paths = frozenset(skip_paths)
        self._tail = json.dumps(writer.identity)[1:] + "\n"
        self._mark = EVENT_MARK.decode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Runs the app, watching what it sends."""
        if scope["type"] != "http" or scope["path"] in self.skip_paths:
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = request_id_of(scope)
        status = 0

        async def watched(message: Any) -> None:
            nonlocal status
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                self.write(scope, request_id, status, started)
                status = -1

        try:
            await self.app(scope, receive, watched)
        finally:
            if status >= 0:  # it ended without an end: it raised, or the client went away
                self.write(scope, request_id, status or 500, started)

    def write(self, scope: Any, request_id: str, status: int, started: float) -> None:
        """Writes the event. The line is put together by hand: it is the cost of every request."""
        client = scope.get("client")
        duration = (time.perf_counter() - started) * 1000
        self.writer.line(
            f'{self._mark}{{"timestamp": "{self.writer.clock.now()}", "level": "info", '
            f'"event": "request", "http.request.method": {_quoted(scope["method"])}, '
            f'"url.path": {_quoted(scope["path"])}, "http.response.status_code": {status}, '
            f'"client.address": {_quoted(client[0] if client else "")}, '
            f'"duration_ms": {duration:.3f}, "request_id": {_quoted(request_id)}, '
            f"{self._tail}".encode()
        )
