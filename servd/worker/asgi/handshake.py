"""What an app makes of a WebSocket's handshake."""

from __future__ import annotations

import contextlib
from typing import Any

SWITCHING_PROTOCOLS = 101
_FORBIDDEN = 403
_ERROR = 500
_INTERNAL_ERROR = 1011
"""RFC 6455, 7.4.1."""


class Handshake:
    """Notes how an app answers a handshake: `status` is 500 until it does, as Uvicorn answers."""

    def __init__(self, send: Any) -> None:
        self.status = _ERROR
        self._send = send
        self._answered = self._closed = False

    async def send(self, message: Any) -> None:
        """Forwards a message."""
        kind = message["type"]
        if not self._answered:
            self._answered = True
            if kind == "websocket.accept":
                self.status = SWITCHING_PROTOCOLS
            elif kind == "websocket.close":
                self.status = _FORBIDDEN
            else:
                self.status = int(message.get("status", _ERROR))
        self._closed = self._closed or kind == "websocket.close"
        await self._send(message)

    async def fail(self) -> None:
        """Closes an accepted WebSocket whose app has raised: Uvicorn would only cut it."""
        if self.status == SWITCHING_PROTOCOLS and not self._closed:
            with contextlib.suppress(Exception):  # the client may be gone
                await self._send({"type": "websocket.close", "code": _INTERNAL_ERROR})
