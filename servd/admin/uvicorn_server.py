"""Uvicorn as a guest in the daemon's loop. Imported when the daemon has started its services."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import structlog
import uvicorn

from servd.http.acceptor import Accepting

_READING = 1.0
"""Seconds within which a client has to take what is being sent when the server ends."""

log = structlog.get_logger()

PATIENCE = 5.0
"""Seconds that requests in flight get when the server ends."""


class AdminUvicorn(uvicorn.Server):
    """Uvicorn without signals and without its tick of a tenth of a second."""

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
        super().__init__(config)
        self._exit = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts connections, in our own way."""
        config, loop = self.config, asyncio.get_running_loop()
        await self.lifespan.startup()

        def protocol() -> asyncio.Protocol:
            made: Any = config.http_protocol_class
            connection: asyncio.Protocol = made(
                config=config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                _loop=loop,
            )
            return connection

        doors = [Accepting(sock, protocol, _say) for sock in sockets or ()]
        for door in doors:
            door.begin(config.backlog)
        self.servers = doors  # type: ignore[assignment]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The daemon's signals are its own."""
        yield

    async def main_loop(self) -> None:
        """Waits for the end."""
        await self._exit.wait()

    def end(self, patience: float | None = PATIENCE) -> None:
        """Begins the end: requests in flight get `patience` seconds (None: what they need). Whoever
        does not read what is sent is not waited for.
        """
        self.config.timeout_graceful_shutdown = patience  # type: ignore[assignment]
        self.should_exit = True
        self._exit.set()
        asyncio.get_running_loop().call_later(_READING, self._abandon)

    def _abandon(self) -> None:
        for connection in list(self.server_state.connections):
            transport: Any = getattr(connection, "transport", None)
            if transport is not None and transport.get_write_buffer_size():
                transport.abort()


def _say(level: str, event: str, **fields: object) -> None:
    getattr(log, level)(event, by="the admin API", **fields)
