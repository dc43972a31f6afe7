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

from servd.worker.slow_clients import BODY, HEAD, NOTHING, Awaited, refuse

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
    """The same for all connections of a server: attributes of a subclass. Bytes of a request's line
    and headers, beyond which it is refused (the parser itself has no limit)."""

    received = 0
    head_bytes = 0
    head_of: object = None
    awaited_before: Awaited | None = None
    awaited_since = 0.0

    def data_received(self, data: bytes) -> None:
        """As Uvicorn's own (which has a timer to cancel first, and is not called, since this runs
        for every request), for heads that are not too long: 431 (RFC 6585, 5).
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
            self._head_goes_on(len(data))

    def _begins_too_long(self, data: bytes) -> bool:
        """Whether a request begins with `data` whose head does not end within the limit."""
        cycle = self.cycle
        between = cycle is None or (cycle.scope is self.scope and self.is_idle)
        if self.scope is not None and not between:
            return False
        return data.find(b"\r\n\r\n", 0, self.head_limit) < 0

    def _head_goes_on(self, received: int) -> None:
        """Counts what belongs to an incomplete head: not the read in which it began, since that may
        hold whole requests before it.
        """
        if self.head_of is not self.scope:
            self.head_of, self.head_bytes = self.scope, 0
            return
        self.head_bytes += received
        if self.head_bytes > self.head_limit and not self.transport.is_closing():
            if self.cycle is not None and not self.cycle.response_complete:
                self._read_no_more()
            else:
                refuse(self, 431, "Request Header Fields Too Large")

    def _read_no_more(self) -> None:
        """What has been asked is answered, and the connection closed then."""
        last = self.pipeline[0][0] if self.pipeline else self.cycle
        last.keep_alive = False
        self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        """As Uvicorn's own; that some has come is noted."""
        self.received += 1
        super().on_body(body)

    @property
    def awaited(self) -> Awaited | None:
        """What of a request is missing, unless it is not the client's turn."""
        scope, cycle = self.scope, self.cycle
        if scope is None:
            return Awaited(NOTHING, None)
        if self.flow.read_paused:
            return None  # it is we who do not read
        if cycle is None or cycle.scope is not scope:
            answering = cycle is not None and not cycle.response_complete
            return None if answering else Awaited(HEAD, id(scope))
        if not cycle.more_body or cycle.waiting_for_100_continue:
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
