"""The access log: one event per request, with OpenTelemetry's field names."""

from __future__ import annotations

import json
import random
from collections.abc import Collection
from time import time

from servd.worker.asgi.request import Request
from servd.worker.events import EventWriter

_quoted = json.encoder.encode_basestring_ascii
_MAX_CACHED_CLIENTS = 1024


class AccessLog:
    """Writes an event per request; `sample` is the share that is logged, of 5xx always all. Those
    of one turn of the loop are rendered together, in the form of `servd.wire.request_line`.
    """

    def __init__(self, writer: EventWriter, skip_paths: Collection[str], sample: float) -> None:
        self.writer = writer
        self.skip_paths = frozenset(skip_paths)
        self.sample = sample
        self._pending: list[tuple[Request, int, float, float]] = []
        self._clients: dict[str, str] = {}

    def add(self, request: Request, status: int, seconds: float) -> None:
        """Records that a request was answered now, after `seconds`."""
        pending = self._pending
        pending.append((request, status, seconds, time()))
        if len(pending) == 1:
            self.writer.ask(self._lines)

    def _lines(self) -> list[str]:
        pending, self._pending = self._pending, []
        text = self.writer.clock.text
        skipped, sample, clients = self.skip_paths, self.sample, self._clients
        lines: list[str] = []
        for request, status, seconds, moment in pending:
            scope = request.scope
            path = scope["path"]
            if path in skipped:
                continue
            if sample < 1 and status < 500 and random.random() >= sample:  # noqa: S311
                continue
            client = scope.get("client")
            address = client[0] if client else ""
            shown = clients.get(address) or self._client(address)
            request_id, trace = request.identity()
            traced = f"\x08{_quoted(trace)}" if trace else ""
            lines.append(
                f"\x01{text(moment)}\x02{_quoted(scope['method'])}"
                f"\x03{_quoted(path)}\x04{status}\x05{shown}\x06{seconds * 1000:.3f}"
                f"\x07{_quoted(request_id)}{traced}\n"
            )
        return lines

    def _client(self, address: str) -> str:
        if len(self._clients) >= _MAX_CACHED_CLIENTS:
            self._clients.clear()
        shown = self._clients[address] = _quoted(address)
        return shown
