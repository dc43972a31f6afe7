"""Closes connections whose request arrives too slowly (Uvicorn waits forever): `timeouts.headers`
limits the head, `timeouts.body` each pause in the body. A periodic scan finds them, so that
requests need no timer: at most an eighth of the shorter limit too late.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any, NamedTuple

_SCANS_PER_LIMIT = 8
"""Scans within the shorter of both limits."""

_MIN_SCAN_SECONDS, _MAX_SCAN_SECONDS = 0.02, 1.0

_CLOSE_BATCH, _CLOSE_PAUSE_SECONDS = 4, 0.002
"""Connections closed at a time, and the pause until the next batch."""

_MAX_LOGGED_CLIENTS = 5

NOTHING = "nothing"
HEAD = "head"
BODY = "body"

log = logging.getLogger("servd.worker")


class Awaited(NamedTuple):
    """What a connection waits for: `NOTHING` has arrived yet, the rest of the `HEAD`, or more of
    the `BODY`. `mark` changes when a part of it arrives.
    """

    what: str
    mark: object


class SlowClients:
    """Closes those of `connections` on which a request arrives too slowly. Limits in seconds."""

    def __init__(self, connections: set[Any], headers: float, body: float) -> None:
        self.connections = connections
        self.limits = {NOTHING: headers, HEAD: headers, BODY: body}
        pause = min(headers, body) / _SCANS_PER_LIMIT
        self.pause = min(_MAX_SCAN_SECONDS, max(_MIN_SCAN_SECONDS, pause))

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts scanning."""
        loop.call_later(self.pause, self._scan, loop, context=contextvars.Context())

    def _scan(self, loop: asyncio.AbstractEventLoop) -> None:
        self.begin(loop)
        now = loop.time()
        due: list[Any] = []
        for connection in [c for c in self.connections if hasattr(c, "awaited")]:  # no WebSocket
            awaited = connection.awaited
            if awaited is None:
                connection.awaited_before = None
            elif connection.awaited_before != awaited:
                connection.awaited_before = awaited
                connection.awaited_since = now
            elif now - connection.awaited_since >= self.limits[awaited.what]:
                due.append(connection)
        if due:
            hosts = {c.client[0] for c in due if c.client}
            names = ", ".join(sorted(hosts)[:_MAX_LOGGED_CLIENTS]) or "unix sockets"
            log.info("requests too slow: closed %d connections from %s", len(due), names)
            self._end_batch(loop, due)

    def _end_batch(self, loop: asyncio.AbstractEventLoop, due: list[Any]) -> None:
        """Closes a few connections and schedules the rest, so that other requests can run."""
        for connection in due[-_CLOSE_BATCH:]:
            awaited = getattr(connection, "awaited", None)
            if awaited is not None and awaited == connection.awaited_before:
                end(connection, awaited.what)
        del due[-_CLOSE_BATCH:]
        if due:
            context = contextvars.Context()
            loop.call_later(_CLOSE_PAUSE_SECONDS, self._end_batch, loop, due, context=context)


def end(connection: Any, what: str) -> None:
    """Closes a connection, with 408 (RFC 9110, 15.5.9) if a request has begun and no answer."""
    cycle = connection.cycle
    if what == HEAD or (what == BODY and not cycle.response_started):
        refuse(connection, 408, "Request Timeout")
    if what == BODY and cycle is not None:
        cycle.ended_with = 408
        cycle.disconnected = True  # the app sees a disconnected client
        cycle.message_event.set()
    connection.transport.close()


def refuse(connection: Any, status: int, reason: str) -> None:
    """Answers a request that never reaches the app, and closes the connection."""
    body = reason.encode()
    lines = [
        f"HTTP/1.1 {status} {reason}".encode(),
        *(name + b": " + value for name, value in connection.server_state.default_headers),
        b"content-type: text/plain; charset=utf-8",
        b"content-length: " + str(len(body)).encode(),
        b"connection: close",
        b"",
        body,
    ]
    connection.transport.write(b"\r\n".join(lines))
    connection.transport.close()
