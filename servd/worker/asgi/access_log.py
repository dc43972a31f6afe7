"""One event for every request; field names are OpenTelemetry's."""

from __future__ import annotations

import json
import random

from servd.wire.names import EVENT_MARK
from servd.worker.asgi.request import Request
from servd.worker.events import EventWriter

_quoted = json.encoder.encode_basestring_ascii
_MOST_CLIENTS = 1024


class AccessLog:
    """Writes the event of a request. `sample` is the share of requests that is logged; those
    that are answered with 5xx always are.
    """

    def __init__(self, writer: EventWriter, skip_paths: tuple[str, ...], sample: float) -> None:
        self.writer = writer
        self.skip_paths = frozenset(skip_paths)
        self.sample = sample
        self._tail = json.dumps(writer.identity)[1:] + "\n"
        self._mark = EVENT_MARK.decode()
        self._clients: dict[str, str] = {}

    def write(self, request: Request, seconds: float) -> None:
        """Writes the event, where it is to be. The line is put together by hand: it is most of what
        servd costs a request.
        """
        scope = request.scope
        path, status = scope["path"], request.status
        if path in self.skip_paths:
            return
        if self.sample < 1 and status < 500 and random.random() >= self.sample:  # noqa: S311
            return
        client = scope.get("client")
        address = client[0] if client else ""
        shown = self._clients.get(address) or self._client(address)
        trace = request.trace_id
        traced = f'"trace_id": {_quoted(trace)}, ' if trace else ""
        writer = self.writer
        writer.line(
            f'{self._mark}{{"timestamp": "{writer.clock.now()}", "level": "info", '
            f'"event": "request", "http.request.method": "{scope["method"]}", '
            f'"url.path": {_quoted(path)}, "http.response.status_code": {status}, '
            f'"client.address": {shown}, "duration_ms": {seconds * 1000:.3f}, '
            f'"request_id": {_quoted(request.id)}, {traced}{self._tail}'
        )

    def _client(self, address: str) -> str:
        """A client's address in quotes; kept, for the next request is likely from the same."""
        if len(self._clients) >= _MOST_CLIENTS:
            self._clients.clear()
        shown = self._clients[address] = _quoted(address)
        return shown
