"""Uvicorn's server on bound sockets, with `Acceptor`, without its signal handlers and tick."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from servd.http.acceptor import Acceptor, Say
from servd.http.balance import Balance
from servd.http.lean_uvicorn import uvicorn

if TYPE_CHECKING:
    from ssl import SSLContext

    from uvicorn.server import ServerState

ServerSocket: TypeAlias = "tuple[socket.socket, SSLContext | None]"
"""A listening socket and the TLS context of its connections."""


class BaseServer(uvicorn.Server):
    """Serves one ASGI application until `begin_exit`."""

    def __init__(self, config: uvicorn.Config, say: Say) -> None:
        """`say` logs events of the acceptors."""
        super().__init__(config)
        self._say = say
        self._exit = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Installs no signal handlers: the owner of the loop handles signals."""
        yield

    def connection(
        self, protocol: Any, state: ServerState | None = None, config: uvicorn.Config | None = None
    ) -> asyncio.Protocol:
        """Returns a new connection of this server, an instance of the class `protocol`."""
        made: asyncio.Protocol = protocol(
            config=config or self.config,
            server_state=state or self.server_state,
            app_state=self.lifespan.state,
            _loop=asyncio.get_running_loop(),
        )
        return made

    def accept_on(
        self,
        listeners: Iterable[ServerSocket],
        protocol: Any,
        handshake: float | None = None,
        balance: Balance | None = None,
    ) -> None:
        """Accepts: `protocol` makes handlers; a TLS handshake may take `handshake` seconds. With
        `balance`, other processes accept from the same sockets.
        """
        acceptors = [
            Acceptor(
                sock, protocol, self._say, context=context, handshake=handshake, balance=balance
            )
            for sock, context in listeners
        ]
        for acceptor in acceptors:
            acceptor.begin(self.config.backlog)
        self.servers = acceptors  # type: ignore[assignment]

    def begin_exit(self) -> None:
        """Ends `main_loop`, at the latest when the startup is over."""
        self.should_exit = True
        self._exit.set()

    async def main_loop(self) -> None:
        """Waits for the exit without Uvicorn's ten wake-ups a second."""
        await self._exit.wait()
