"""Closes idle connections after `timeouts.keep_alive` with one timer for all: Uvicorn's, one per
request, take one to two of the hundred microseconds of a small request.
"""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from servd.worker.slow_clients import BODY, HEAD, NOTHING, Awaited, refuse

_INVALID = "Invalid HTTP request received."
_MIN_SCAN_SECONDS = 0.05


@dataclass(eq=False)
class IdleConnections:
    """Closes `connections` that have been idle for `keep_alive` seconds."""

    connections: set[Any]
    keep_alive: float
    armed: bool = False

    def arm(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Scans the connections in `seconds`."""
        self.armed = True
        loop.call_later(seconds, self._scan, loop, context=contextvars.Context())

    def _scan(self, loop: asyncio.AbstractEventLoop) -> None:
        self.armed = False
        now = loop.time()
        pending: list[float] = []
        for connection in list(self.connections):
            if isinstance(connection, ThriftyProtocol) and connection.is_idle:
                if connection.idle_since + self.keep_alive <= now:
                    connection.timeout_keep_alive_handler()
                else:
                    pending.append(connection.idle_since)
        if pending:
            self.arm(loop, max(_MIN_SCAN_SECONDS, min(pending) + self.keep_alive - now))


class ThriftyProtocol(HttpToolsProtocol):
    """Uvicorn's protocol without a timer per idle connection. A subclass per server sets `idle` and
    `head_limit`: the maximum bytes of a request's line and headers (the parser has no limit).
    """

    idle_since = 0.0
    idle: IdleConnections
    head_limit: int

    received = 0
    head_bytes = 0
    head_of: object = None
    awaited_before: Awaited | None = None
    awaited_since = 0.0

    def data_received(self, data: bytes) -> None:
        """Replaces Uvicorn's method, which cancels a timer first: refuses long heads with 431 (RFC
        6585, 5). It runs for every request, so it does not call the original.
        """
        if len(data) > self.head_limit and self._begins_too_long(data):
            refuse(self, 431, "Request Header Fields Too Large")
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.logger.warning(_INVALID)
            self.send_400_response(_INVALID)
            return
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._unsupported_upgrade_warning()
            return
        cycle = self.cycle
        if cycle is None or cycle.scope is not self.scope:
            self._count_head(len(data))

    def _begins_too_long(self, data: bytes) -> bool:
        cycle = self.cycle
        between = cycle is None or (cycle.scope is self.scope and self.is_idle)
        if self.scope is not None and not between:
            return False
        return data.find(b"\r\n\r\n", 0, self.head_limit) < 0

    def _count_head(self, received: int) -> None:
        """Counts the bytes of an incomplete head after its first read (which may hold others)."""
        if self.head_of is not self.scope:
            self.head_of, self.head_bytes = self.scope, 0
            return
        self.head_bytes += received
        if self.head_bytes > self.head_limit and not self.transport.is_closing():
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_reading()
            else:
                refuse(self, 431, "Request Header Fields Too Large")

    def _stop_reading(self) -> None:
        """Answers the earlier requests, then closes the connection."""
        (self.pipeline[0][0] if self.pipeline else self.cycle).keep_alive = False
        self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        """Extends Uvicorn's method: counts that a part of the body arrived."""
        self.received += 1
        super().on_body(body)

    @property
    def awaited(self) -> Awaited | None:
        """The missing part of a request; None when it is not the client's turn."""
        scope, cycle = self.scope, self.cycle
        if scope is None:
            return Awaited(NOTHING, None)
        if self.flow.read_paused:
            return None  # reading is paused by this side
        if cycle is None or cycle.scope is not scope:
            answering = cycle is not None and not cycle.response_complete
            return None if answering else Awaited(HEAD, id(scope))
        if not cycle.more_body or cycle.waiting_for_100_continue:
            return None
        return Awaited(BODY, self.received)

    def on_response_complete(self) -> None:
        """Replaces Uvicorn's method when no request waits in the pipeline."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self.idle_since = self.loop.time()
        idle = self.idle
        if not idle.armed:
            idle.arm(self.loop, idle.keep_alive)

    @property
    def is_idle(self) -> bool:
        """Whether the last request and its answer are complete, and no other request has begun."""
        cycle = self.cycle
        if cycle is None or cycle.scope is not self.scope:
            return False
        return cycle.response_complete and not cycle.more_body
