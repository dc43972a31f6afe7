"""Uvicorn's request and answer over httptools, at a lower cost and with the same rules: an event
only for an app that waits, fields of a head that were checked before, no callback per task, and one
write for a head and the body that follows at once: a system call is a sixth of a small request.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)
from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from servd.worker.http_rules import BODILESS

_MOST_FIELDS = 512
_LONGEST_FIELD = 256
"""Bytes of a field that is kept: most are a type, a policy or the date."""

_LONGEST_JOINED = 16 * 1024
"""Bytes of a body that are copied next to the head: more take longer than a write of their own."""

_ACTED_ON = frozenset({b"content-length", b"transfer-encoding", b"connection"})

_fields: dict[tuple[bytes, bytes], bytes] = {}
"""Fields that were checked, as they are sent; none of `_ACTED_ON`."""

_errors = logging.getLogger("uvicorn.error")
_accesses = logging.getLogger("uvicorn.access")


def _nothing() -> None:
    """Stands for what is done at the end of an answer whose task has ended."""


def _tokens(value: bytes) -> list[bytes]:
    return [token.lower().strip() for token in value.split(b",")]


class WaitingHeads:
    """Sends the heads that no body has followed by the end of a turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._cycles: list[LeanCycle] = []
        self._loop = loop
        self._context = contextvars.Context()

    def add(self, cycle: LeanCycle) -> None:
        """Sends the head of `cycle` soon, unless it is sent before."""
        self._cycles.append(cycle)
        if len(self._cycles) == 1:
            self._loop.call_soon(self._send, context=self._context)

    def _send(self) -> None:
        cycles, self._cycles = self._cycles, []
        for cycle in cycles:
            cycle.send_waiting_head()


class LeanCycle(RequestResponseCycle):
    """One request and its answer. It is its own `message_event`, of which others only call `set`.

    `tasks` are those of the server, with its own among them while it runs.
    """

    logger = _errors

    def __init__(  # all attributes: those of a class take longer to read
        self, connection: Any, expect_100_continue: bool, keep_alive: bool
    ) -> None:
        self.scope = connection.scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.tasks: set[Any] = connection.tasks
        self.default_headers = connection.server_state.default_headers
        self.on_response = connection.on_response_complete
        self.access_log = connection.access_log
        self.heads: WaitingHeads = connection.heads
        self.task: asyncio.Task[None] | None = None
        self.disconnected = False
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expect_100_continue
        self.body: Any = b""
        self.more_body = True
        self.response_started = self.response_complete = False
        self.chunked_encoding: bool | None = None
        self.expected_content_length = 0
        self._says_close = self._is_set = self._has_no_body = False
        self._head = b""
        self._event: asyncio.Event | None = None

    @property
    def message_event(self) -> Any:  # type: ignore[override]
        """What tells `receive` that there is something new."""
        return self

    def set(self) -> None:
        """Wakes `receive`, or lets its next call return at once."""
        self._is_set = True
        if self._event is not None:
            self._event.set()

    async def run_asgi(self, app: Any) -> None:
        """Replaces Uvicorn's method: takes its task out of the server's without a callback."""
        try:
            result = await app(self.scope, self.receive, self.send)
        except BaseException as error:
            _errors.error("Exception in ASGI application\n", exc_info=error)
            if not self.response_started:
                await self.send_500_response()
            else:
                self._cut()
        else:
            if result is not None or not self.response_complete:
                await self._end_incomplete(result)
        finally:
            self.on_response = _nothing
            self.tasks.discard(self.task)
            self.task = None

    async def _end_incomplete(self, result: Any) -> None:
        """Ends an answer that the app has left incomplete, or returned instead of sending it."""
        if result is not None:
            message = "ASGI callable should return None, but returned '%s'."
            _errors.error(message, result)
            self._cut()
        elif self.disconnected:
            return
        elif not self.response_started:
            _errors.error("ASGI callable returned without starting response.")
            await self.send_500_response()
        else:
            _errors.error("ASGI callable returned without completing response.")
            self._cut()

    def _cut(self) -> None:
        """Closes the connection in the middle of an answer."""
        self.send_waiting_head()
        self.transport.close()

    def send_waiting_head(self) -> None:
        """Sends the head, if it still waits for the body."""
        head, self._head = self._head, b""
        if head and not self.disconnected and not self.transport.is_closing():
            self.transport.write(head)

    async def send(self, message: Any) -> None:
        """Replaces Uvicorn's method."""
        flow = self.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(
                    f"Expected ASGI message 'http.response.start', but got '{kind}'."
                )
            self._send_head(message)
        elif self.response_complete:
            raise RuntimeError(
                f"Unexpected ASGI message '{kind}' sent, after response already completed."
            )
        elif kind != "http.response.body":
            raise RuntimeError(f"Expected ASGI message 'http.response.body', but got '{kind}'.")
        else:
            self._send_body(message.get("body", b""), message.get("more_body", False))

    def _send_head(self, message: Any) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        status = message["status"]
        if self.access_log:
            self._log(status)
        content = [STATUS_LINE[status]]
        for fields in (self.default_headers, message.get("headers", ())):
            for field in fields:
                try:
                    line = _fields.get(field)
                except TypeError:  # a list, or one with a bytearray
                    line = None
                content.append(line or self._field(*field))
        if not self.keep_alive and not self._says_close:
            content.append(b"connection: close\r\n")
        if status in BODILESS or self.scope["method"] == "HEAD":
            self._has_no_body = True
        elif self.chunked_encoding is None:
            self.chunked_encoding = True
            content.append(b"transfer-encoding: chunked\r\n")
        content.append(b"\r\n")
        self._head = b"".join(content)
        self.heads.add(self)

    def _field(self, name: bytes, value: bytes) -> bytes:
        """Returns a field as it is sent, and acts on it. Raises RuntimeError when it is invalid."""
        if name == b"content-length" and value.isdigit() and self.chunked_encoding is None:
            self.expected_content_length = int(value)
            self.chunked_encoding = False
            return b"content-length: %b\r\n" % value
        if HEADER_RE.search(name):
            raise RuntimeError("Invalid HTTP header name.")
        if HEADER_VALUE_RE.search(value):
            raise RuntimeError("Invalid HTTP header value.")
        given, name = name, bytes(name.lower())  # it may be a bytearray
        line = b"%b: %b\r\n" % (name, value)
        if name not in _ACTED_ON:
            if type(given) is type(value) is bytes and len(line) <= _LONGEST_FIELD:
                if len(_fields) >= _MOST_FIELDS:
                    _fields.clear()
                _fields[given, value] = line
        elif name == b"content-length" and self.chunked_encoding is None:
            self.expected_content_length = int(value.decode())
            self.chunked_encoding = False
        elif name == b"transfer-encoding" and value.lower() == b"chunked":
            self.expected_content_length = 0
            self.chunked_encoding = True
        elif name == b"connection" and b"close" in _tokens(value):
            self.keep_alive = False
            self._says_close = True
        return line

    def _log(self, status: int) -> None:
        """Writes Uvicorn's own access log, which an app may have turned on."""
        _accesses.info(
            '%s - "%s %s HTTP/%s" %d',
            get_client_addr(self.scope),
            self.scope["method"],
            get_path_with_query_string(self.scope),
            self.scope["http_version"],
            status,
        )

    def _send_body(self, body: bytes, more_body: bool) -> None:
        if self._has_no_body:  # a client would take it for the next response
            self.expected_content_length = 0
            self.send_waiting_head()
        elif self.chunked_encoding:
            content = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more_body:
                content += b"0\r\n\r\n"
            self._write(content)
        else:
            if len(body) > self.expected_content_length:
                raise RuntimeError("Response content longer than Content-Length")
            self.expected_content_length -= len(body)
            self._write(body)
        if not more_body:
            if self.expected_content_length != 0:
                raise RuntimeError("Response content shorter than Content-Length")
            self.response_complete = True
            self.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def _write(self, content: bytes) -> None:
        """Sends a part of the body, with the head if that waits."""
        head = self._head
        if head and len(content) <= _LONGEST_JOINED:
            content = head + content
            self._head = b""
        elif head:
            self.send_waiting_head()
        self.transport.write(content)

    async def receive(self) -> Any:
        """Replaces Uvicorn's method: makes an event only when it has to wait."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            if not self._is_set:
                await self._wait()
            self._is_set = False
            if self._event is not None:
                self._event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), b""
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def _wait(self) -> None:
        if self._event is None:
            self._event = asyncio.Event()
        await self._event.wait()
