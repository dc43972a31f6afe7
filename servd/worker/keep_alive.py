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
import urllib.parse
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from servd.worker.cycle import LeanCycle, WaitingHeads
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


_MOST_URLS, _LONGEST_URL = 512, 128
_known_urls: dict[bytes, tuple[str, bytes, bytes]] = {}
"""What the parser found in URLs without a query: path, raw path and query."""


def _parsed(url: bytes) -> tuple[str, bytes, bytes]:
    """Raises an error of the parser or of the decoder, which it makes an answer with 400."""
    parsed = httptools.parse_url(url)
    raw_path = parsed.path
    path = raw_path.decode("ascii")
    if "%" in path:
        path = urllib.parse.unquote(path)
    found = path, raw_path, parsed.query or b""
    if not found[2] and len(url) <= _LONGEST_URL:
        if len(_known_urls) >= _MOST_URLS:
            _known_urls.clear()
        _known_urls[url] = found
    return found


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
    """Uvicorn's protocol without a timer per idle connection. A subclass per server sets `idle`
    and `heads`, too; the parser has no limit for heads.
    """

    idle_since = 0.0
    idle: IdleConnections
    heads: WaitingHeads

    head_bytes = 0
    head_of: object = None
    body_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Extends Uvicorn's method: keeps what each request reads, faster than from a class."""
        super().connection_made(transport)
        self.idle, self.heads = self.idle, self.heads
        self.head_limit, self.tls = self.head_limit, self.tls
        self.body_bytes = 0

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
            cycle.send_waiting_head()
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

    def on_message_begin(self) -> None:
        """Replaces Uvicorn's method: a scope with room for all that is known once the head ends."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": "",
            "root_path": self.root_path,
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "headers": self.headers,
            "state": self.app_state.copy(),
        }

    def on_headers_complete(self) -> None:
        """Replaces Uvicorn's method: refuses what no server should take, keeps trailers out."""
        parser, scope = self.parser, self.scope
        version = parser.get_http_version()
        refused = refusal_of(self.headers, version)
        if refused is not None:
            raise RefusedHeadError(refused)
        self.headers = _TRAILERS
        scope["method"] = parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        if self.tls is not None:
            self._tell_certificate()
        if parser.should_upgrade() and self._should_upgrade():
            return
        path, raw_path, scope["query_string"] = _known_urls.get(self.url) or _parsed(self.url)
        root = self.root_path
        scope["path"] = root + path if root else path
        scope["raw_path"] = root.encode("ascii") + raw_path if root else raw_path
        before: Any = self.cycle
        keep_alive = version != "1.0" and parser.should_keep_alive()
        cycle = self.cycle = LeanCycle(self, self.expect_100_continue, keep_alive)
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Replaces Uvicorn's method, which needs another turn of the loop when the task ends."""
        task = cycle.task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)  # which it leaves by itself, unless it is cancelled before it begins

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
        """Replaces Uvicorn's method: counts what arrived of the body."""
        self.received += 1
        self.body_bytes += len(body)
        cycle: Any = self.cycle
        if cycle is None or cycle.scope is not self.scope or cycle.response_complete:
            return  # of a request that becomes a WebSocket, or was answered already
        if cycle.body:
            cycle.body += body
        else:
            cycle.body = bytearray(body)
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.set()

    def on_message_complete(self) -> None:
        """Replaces Uvicorn's method, as `on_body` does."""
        cycle: Any = self.cycle
        if cycle is None or cycle.scope is not self.scope or cycle.response_complete:
            return
        cycle.more_body = False
        cycle.set()

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
