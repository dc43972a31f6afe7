"""Uvicorn's protocol for httptools, and what servd fixes in it:

- one timer per idle connection takes one to two of the hundred microseconds of a small request;
- a head may have any length, as may trailers and the extensions of chunks;
- trailers join the headers that the app has already got (RFC 9110, 6.5.1);
- what follows a request with `Upgrade: h2c` on the same connection is not answered;
- a body that breaks off is answered with 400 in the middle of the app's answer.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from servd.worker.guarded_connection import GuardedConnection
from servd.worker.http_rules import (
    BAD_REQUEST,
    TOO_LONG,
    Refusal,
    RefusedHeadError,
    refusal_of,
)
from servd.worker.slow_clients import BODY, HEAD, NOTHING, Awaited, refuse
from servd.worker.websocket_handshake import follow, refusal_of_handshake

_MIN_SCAN_SECONDS = 0.05


log = logging.getLogger("servd.worker")


class _Trailers(list[tuple[bytes, bytes]]):
    """Takes the fields that come after the head, and forgets them."""

    def append(self, field: tuple[bytes, bytes], /) -> None:
        """Forgets a field."""


_TRAILERS = _Trailers()


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


class ThriftyProtocol(GuardedConnection, HttpToolsProtocol):
    """Uvicorn's protocol without a timer per idle connection. A subclass per server sets `idle`,
    too; the parser has no limit for heads.
    """

    idle_since = 0.0
    idle: IdleConnections

    head_bytes = 0
    head_of: object = None
    body_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Replaces Uvicorn's method, which cancels a timer first: refuses long heads with 431 (RFC
        6585, 5). It runs for every request, so it does not call the original.
        """
        if len(data) > self.head_limit and self._begins_too_long(data):
            self._fail(TOO_LONG)
            return
        body_before = self.body_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            refused = cause.refusal if isinstance(cause, RefusedHeadError) else BAD_REQUEST
            log.info("request rejected: %s", refused.reason)
            self._fail(refused)
            return
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._go_on_after(data[upgrade.args[0] :])
            return
        cycle = self.cycle
        if cycle is None or cycle.scope is not self.scope:
            self._count_head(len(data))
        elif cycle.more_body:
            self._count_framing(len(data) - (self.body_bytes - body_before), self.received)

    def handle_websocket_upgrade(self) -> None:
        """Extends Uvicorn's method: refuses what the library would not answer."""
        scope = self.scope
        refused = refusal_of_handshake(scope["method"], self.url, scope["headers"])
        if refused is not None:
            self._fail(refused)
            return
        super().handle_websocket_upgrade()
        follow(self)

    def _go_on_after(self, rest: bytes) -> None:
        """Reads what follows a request whose offer of another protocol is not taken up."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        if rest:
            self.data_received(rest)

    def _fail(self, refusal: Refusal) -> None:
        """Answers a request that is refused, unless an answer has begun, and closes. Earlier
        requests get their answers first.
        """
        cycle: Any = self.cycle
        is_its_own = cycle is not None and cycle.scope is self.scope
        if cycle is not None and not is_its_own and not cycle.response_complete:
            self._stop_reading()
            return
        if not is_its_own or not cycle.response_started:
            refuse(self, *refusal)
        if is_its_own and not cycle.response_complete:
            cycle.ended_with = refusal.status
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

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
                refuse(self, *TOO_LONG)

    def _stop_reading(self) -> None:
        """Answers the earlier requests, then closes the connection."""
        (self.pipeline[0][0] if self.pipeline else self.cycle).keep_alive = False
        self.flow.pause_reading()

    def on_headers_complete(self) -> None:
        """Extends Uvicorn's method: refuses what no server should take; no field joins the head."""
        refused = refusal_of(self.headers, self.parser.get_http_version())
        if refused is not None:
            raise RefusedHeadError(refused)
        self._tell_certificate()
        super().on_headers_complete()
        self.headers = _TRAILERS

    def _get_upgrade(self) -> bytes | None:
        """Replaces Uvicorn's method, which looks for it among the trailers, too."""
        offered: bytes | None = None
        connection: list[bytes] = []
        for name, value in self.scope["headers"]:
            if name == b"connection":
                connection = [token.lower().strip() for token in value.split(b",")]
            elif name == b"upgrade":
                offered = value.lower()
        return offered if b"upgrade" in connection else None

    def on_body(self, body: bytes) -> None:
        """Extends Uvicorn's method: counts what arrived of the body."""
        self.received += 1
        self.body_bytes += len(body)
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
