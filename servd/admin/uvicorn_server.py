"""Uvicorn in the daemon's loop. It is imported after the daemon has started its services."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import structlog

from servd.http.base_server import BaseServer
from servd.http.lean_uvicorn import uvicorn
from servd.worker.cycle import WaitingHeads
from servd.worker.keep_alive import IdleConnections, ThriftyProtocol
from servd.worker.slow_clients import SlowClients

_READ_SECONDS = 1.0
"""Time for clients to read their answers when the server ends."""

_HEAD_SECONDS, _BODY_SECONDS, _IDLE_SECONDS = 5.0, 10.0, 10.0
_HEAD_BYTES = 64 * 1024
"""What a request may take, as for Caddy's admin API."""

_MOST_CONNECTIONS = 100
"""Connections of one address, followers included: more are closed, so that strangers leave the
daemon descriptors for its workers."""

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
        connections = self.server_state.connections

        class AdminProtocol(ThriftyProtocol):
            idle = IdleConnections(connections, _IDLE_SECONDS)
            heads = WaitingHeads(asyncio.get_running_loop())
            head_limit = _HEAD_BYTES
            handshake_limit = _HEAD_SECONDS

            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                if len(connections) > _MOST_CONNECTIONS:
                    transport.abort()

        listeners = [(sock, None) for sock in sockets or ()]
        self.accept_on(listeners, lambda: self.connection(AdminProtocol))
        SlowClients(connections, _HEAD_SECONDS, _BODY_SECONDS).begin(asyncio.get_running_loop())
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
    getattr(log, level)(event, by="admin API", **fields)
