"""What servd adds to both of Uvicorn's HTTP protocols, whichever parser they have."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from servd.worker.client_certificate import tls_extension
from servd.worker.http_rules import FRAMING_BYTES, TOO_LONG, Refusal
from servd.worker.slow_clients import Awaited
from servd.worker.websocket_handshake import known_server


class GuardedConnection(asyncio.Protocol):
    """A connection that knows its server's name and the client's certificate, and how much frames a
    body. A subclass per server sets `head_limit` (bytes of a head), `handshake_limit` (seconds in
    which a WebSocket has to reach the app), `unix_names` and `tells_certificate`.
    """

    head_limit: int
    handshake_limit: float
    unix_names: Mapping[str, str] = {}
    tells_certificate = False
    tls: dict[str, Any] | None = None

    scope: Any
    server: Any
    transport: Any

    received = 0
    framing_of: object = None
    framing_bytes = 0
    parts_before = 0
    awaited_before: Awaited | None = None
    awaited_since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Extends Uvicorn's method: a unix socket has the name that clients know."""
        super().connection_made(transport)
        self.server = known_server(self.server, self.unix_names)
        if self.tells_certificate:
            self.tls = tls_extension(transport)

    def _tell_certificate(self) -> None:
        if self.tls is not None:
            self.scope["extensions"] = {"tls": self.tls}

    def _count_framing(self, received: int, parts: int) -> None:
        """Counts the bytes of a body that are not its content, after the read that ended the head:
        sizes and extensions of chunks, and trailers. `parts` of content came on the connection.
        """
        if self.framing_of is not self.scope:
            self.framing_of, self.framing_bytes = self.scope, 0
            self.parts_before = parts
            return
        self.framing_bytes += received
        most = self.head_limit + FRAMING_BYTES * (parts - self.parts_before)
        if self.framing_bytes > most and not self.transport.is_closing():
            self._fail(TOO_LONG)

    def _fail(self, refusal: Refusal) -> None:
        raise NotImplementedError
