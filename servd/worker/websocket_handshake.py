"""The handshake of a WebSocket (RFC 6455, 4.1), before a library of Uvicorn's gets it.

The `websockets` library refuses long lines, many headers and bodies in its parser, where Uvicorn
answers nothing, calls no app and keeps the connection for ever; at the end of the worker such a
connection raises an exception in Uvicorn's `shutdown` (seen with uvicorn 0.54, websockets 17.4).
What it would refuse is refused here, and what gets stuck all the same is ended.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from servd.worker.http_rules import TOO_LONG, Refusal

_MOST_HEADERS = 128
_LONGEST_LINE = 8192
"""Limits of the `websockets` library (MAX_NUM_HEADERS, MAX_LINE_LENGTH), line ends included."""

_METHOD = Refusal(400, "A WebSocket handshake must be a GET request.")
_BODY = Refusal(400, "A WebSocket handshake must not have a body.")
_KEY = Refusal(400, "Sec-WebSocket-Key must be 16 bytes in base64.")
"""wsproto takes any (RFC 6455, 4.2.1; seen with 1.3.2)."""

log = logging.getLogger("servd.worker")


def refusal_of_handshake(
    method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> Refusal | None:
    """Returns why a handshake is refused; None if it is not."""
    if method != "GET":
        return _METHOD
    longest = len(target) + len("GET  HTTP/1.1\r\n")
    count = 0
    keys: list[bytes] = []
    for name, value in headers:
        count += 1
        longest = max(longest, len(name) + len(value) + len(": \r\n"))
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            return _BODY
        if name == b"sec-websocket-key":
            keys.append(value)
    if len(keys) != 1 or not _is_key(keys[0]):
        return _KEY
    return TOO_LONG if longest > _LONGEST_LINE or count > _MOST_HEADERS else None


def _is_key(value: bytes) -> bool:
    try:
        return len(binascii.a2b_base64(value, strict_mode=True)) == 16
    except ValueError:
        return False


ServerAddress = tuple[str, int | None]
"""Where a connection came in: host and port, or the path of a unix socket and None."""


def known_server(server: ServerAddress | None, names: Mapping[str, str]) -> ServerAddress | None:
    """Returns the name by which clients know a unix socket; another server as it is."""
    if server is None or server[1] is not None:
        return server
    return names.get(server[0], server[0]), None


class UpgradedConnection(Protocol):
    """An HTTP connection that has become a WebSocket's."""

    loop: asyncio.AbstractEventLoop
    transport: Any
    server: ServerAddress | None
    tls: dict[str, Any] | None
    handshake_limit: float


def follow(connection: UpgradedConnection) -> None:
    """Tells the library's protocol, which has the connection now, what servd knows of it. Ends it
    if its handshake has not reached the app within `handshake_limit`.
    """
    protocol = connection.transport.get_protocol()
    protocol.server = connection.server
    if scope := getattr(protocol, "scope", None):  # its task has not begun
        scope["server"] = connection.server
        if connection.tls is not None:
            scope["extensions"]["tls"] = connection.tls
    limit = connection.handshake_limit
    connection.loop.call_later(limit, _end_if_stuck, connection.transport, protocol)


def _end_if_stuck(transport: Any, protocol: Any) -> None:
    if getattr(protocol, "scope", None) is None and not transport.is_closing():
        log.info("WebSocket handshake not understood: connection closed")
        transport.abort()
