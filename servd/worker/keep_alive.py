"""Closing idle connections after `timeouts.keep_alive` with one timer for all of them.

Uvicorn starts and cancels a timer for every request, which is one to two of the hundred
microseconds that a small request takes.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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
    """The same for all connections of a server: an attribute of a subclass."""

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
