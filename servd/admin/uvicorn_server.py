"""Uvicorn as a guest in the daemon's loop. Imported when the daemon has started its services."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import uvicorn

_READING = 1.0
"""Seconds within which a client has to take what is being sent when the server ends."""

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
