"""Clients that send a request a byte at a time hold a connection and nothing else: not for longer
than `timeouts.headers` for its head, and `timeouts.body` for each pause in its body.

Uvicorn waits for ever for both. One look now and then at all connections finds them, so that no
request pays for a timer: a connection is closed at most an eighth of the shorter time too late.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any, NamedTuple

_LOOKS = 8
"""So many looks in the shorter of both times."""

_SHORTEST, _LONGEST = 0.02, 1.0
"""Seconds between two looks."""

_AT_ONCE, _BREATH = 4, 0.002
"""So many are ended in one go, and seconds until the next."""

_MOST_TOLD = 5

NOTHING = "nothing"
HEAD = "head"
BODY = "body"

log = logging.getLogger("servd.worker")


class Awaited(NamedTuple):
    """What a connection waits for: `NOTHING` has come at all, the rest of the `HEAD`, more of the
    `BODY`. `mark` is another one when some of it has come.
    """

    what: str
    mark: object


class SlowClients:
    """Ends those of `connections` on which a request comes too slowly. Times are seconds."""

    def __init__(self, connections: set[Any], headers: float, body: float) -> None:
        self.connections = connections
        self.limits = {NOTHING: headers, HEAD: headers, BODY: body}
        self.pause = min(_LONGEST, max(_SHORTEST, min(headers, body) / _LOOKS))

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Looks from now on."""
        loop.call_later(self.pause, self._look, loop, context=contextvars.Context())

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self.begin(loop)
        now = loop.time()
        due: list[Any] = []
        for connection in list(self.connections):
            if not hasattr(connection, "awaited"):
                continue  # a WebSocket by now
            awaited = connection.awaited
            if awaited is None:
                connection.awaited_before = None
            elif connection.awaited_before != awaited:
                connection.awaited_before = awaited
                connection.awaited_since = now
            elif now - connection.awaited_since >= self.limits[awaited.what]:
                due.append(connection)
        if due:
            whose = {c.client[0] for c in due if c.client}
            told = ", ".join(sorted(whose)[:_MOST_TOLD]) or "unix sockets"
            log.info("requests came too slowly: %d connections of %s closed", len(due), told)
            self._end_some(loop, due)

    def _end_some(self, loop: asyncio.AbstractEventLoop, due: list[Any]) -> None:
        """Ends a few, and the rest a little later: others shall not wait for all of them."""
        for connection in due[-_AT_ONCE:]:
            awaited = getattr(connection, "awaited", None)
            if awaited is not None and awaited == connection.awaited_before:
                end(connection, awaited.what)
        del due[-_AT_ONCE:]
        if due:
            context = contextvars.Context()
            loop.call_later(_BREATH, self._end_some, loop, due, context=context)


def end(connection: Any, what: str) -> None:
    """Closes a connection: with 408 (RFC 9110, 15.5.9) where a request has begun, and no answer."""
    cycle = connection.cycle
    if what == HEAD or (what == BODY and not cycle.response_started):
        refuse(connection, 408, "Request Timeout")
    if what == BODY and cycle is not None:
        cycle.ended_with = 408
        cycle.disconnected = True  # the app hears of it as of any client that has gone
        cycle.message_event.set()
    connection.transport.close()


def refuse(connection: Any, status: int, reason: str) -> None:
    """Writes an answer to a request that no app will see, and closes the connection."""
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
