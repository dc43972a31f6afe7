"""Closing idle connections after `timeouts.keep_alive` with one timer for all of them.

Uvicorn starts and cancels a timer for every request, which is one to two of the hundred
microseconds that a small request takes.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from servd.worker.slow_clients import BODY, HEAD, NOTHING, Awaited, end, is_chunked, refuse

_INVALID = "Invalid HTTP request received."
_SHORTEST = 0.05
"""Seconds between two looks, which go through all connections."""


class IdleConnections:
    """Closes those of `connections` that have been idle for `keep_alive` seconds."""

    def __init__(self, connections: set[Any], keep_alive: float) -> None:
        self.connections = connections
        self.keep_alive = keep_alive
        self.armed = False

    def arm(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Looks for connections that are due in so many seconds."""
        self.armed = True
        loop.call_later(seconds, self._look, loop, context=contextvars.Context())

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Closes what is due, and looks again when the next one is."""
        self.armed = False
        now = loop.time()
        oldest = None
        for connection in list(self.connections):
            if not isinstance(connection, ThriftyProtocol) or not connection.is_idle:
                continue
            if connection.idle_since + self.keep_alive <= now:
                connection.timeout_keep_alive_handler()
            elif oldest is None or connection.idle_since < oldest:
                oldest = connection.idle_since
        if oldest is not None:
            self.arm(loop, max(_SHORTEST, oldest + self.keep_alive - now))


class ThriftyProtocol(HttpToolsProtocol):
    """Uvicorn's protocol without a timer of its own for each idle time."""

    idle_since = 0.0
    idle: IdleConnections
    head_limit: int
    body_limit: int | None
    """The same for all connections of a server: attributes of a subclass. Bytes of a request's line
    and headers, and of its body, beyond which it is refused (the parser itself has no limits)."""

    received = 0
    head_bytes = 0
    body_bytes = 0
    body_of: object = None
    body_in_chunks = False
    awaited_before: Awaited | None = None
    awaited_since = 0.0

    def data_received(self, data: bytes) -> None:
        """As Uvicorn's own (which has a timer to cancel first, and is not called, since this runs
        for every request), for heads that are not too long: 431 (RFC 6585, 5).
        """
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
            self._head_goes_on(len(data))
        elif self.head_bytes:
            self.head_bytes = 0

    def _head_goes_on(self, received: int) -> None:
        self.head_bytes += received
        if self.head_bytes > self.head_limit and not self.transport.is_closing():
            refuse(self, 431, "Request Header Fields Too Large")

    def on_body(self, body: bytes) -> None:
        """As Uvicorn's own; that some has come is noted, and what is too much refused. (What says
        its length is refused before; this is for the others.)
        """
        self.received += 1
        if self.body_limit is not None:
            if self.body_of is not self.scope:
                self.body_of, self.body_bytes = self.scope, 0
                self.body_in_chunks = is_chunked(self.headers)
            self.body_bytes += len(body) if self.body_in_chunks else 0
            if self.body_bytes > self.body_limit:
                end(self, BODY, 413, "Content Too Large")
                return
        super().on_body(body)

    @property
    def awaited(self) -> Awaited | None:
        """What of a request is missing, unless it is not the client's turn."""
        scope, cycle = self.scope, self.cycle
        if scope is None:
            return Awaited(NOTHING, None)
        if cycle is None or cycle.scope is not scope:
            return Awaited(HEAD, id(scope))
        if not cycle.more_body or self.flow.read_paused or cycle.waiting_for_100_continue:
            return None
        return Awaited(BODY, self.received)

    def on_response_complete(self) -> None:
        """As Uvicorn's own, but for what happens where nothing waits in the pipeline."""
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
        """Whether its last answer is complete, all of the request has come, and no further one has
        begun.
        """
        cycle = self.cycle
        if cycle is None or cycle.scope is not self.scope:
            return False
        return cycle.response_complete and not cycle.more_body
