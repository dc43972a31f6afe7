"""Uvicorn in the daemon's loop. It is imported after the daemon has started its services."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import structlog
import uvicorn

from servd.http.base_server import BaseServer

_READ_SECONDS = 1.0
"""Time for clients to read their answers when the server ends."""

log = structlog.get_logger()


class AdminUvicorn(BaseServer):
    """Serves the admin API in the daemon's loop."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(
            app,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            date_header=False,
            server_header=False,
            proxy_headers=False,
        )
        super().__init__(config, _say)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts accepting connections."""
        await self.lifespan.startup()
        http = self.config.http_protocol_class
        self.accept_on([(sock, None) for sock in sockets or ()], lambda: self.connection(http))
        self.started = True

    def end(self, seconds: float | None) -> None:
        """Gives requests in flight `seconds` (None: no limit); aborts clients that do not read."""
        self.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment]
        self.begin_exit()
        asyncio.get_running_loop().call_later(_READ_SECONDS, self._abort_unread)

    def _abort_unread(self) -> None:
        for connection in list(self.server_state.connections):
            transport: Any = getattr(connection, "transport", None)
            if transport is not None and transport.get_write_buffer_size():
                transport.abort()


def _say(level: str, event: str, **fields: object) -> None:
    getattr(log, level)(event, by="the admin API", **fields)
