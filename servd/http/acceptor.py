"""Accepting connections, also where no descriptors are left for them: they wait in the queue of the
socket, for this process or another one that shares it.

Event loops have their own: asyncio's logs a line for every place in the queue, every second, and
libuv's resets everything that waits. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import time
from collections.abc import Callable

_TURN = 64
"""Connections that are accepted in one turn of the loop."""

_PAUSE = 0.1
"""Seconds until it is tried again after a failure."""

_CALM = 1.0
"""Seconds without another failure after which it is over."""

SAY_AGAIN = 60.0
"""Seconds between two times that a failure is said, whether it lasts or comes and goes."""

Say = Callable[..., None]
"""Takes the level and the name of an event, and its fields by their names."""


class Acceptor:
    """Hands every connection of a listening socket to a protocol of its own.

    In Uvicorn's `servers` it stands for one of asyncio's: it has `close` and `wait_closed`.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        say: Say,
        *,
        context: ssl.SSLContext | None = None,
        handshake: float | None = None,
    ) -> None:
        self._socket = sock
        self._protocol = protocol
        self._say = say
        self._context = context
        self._handshake = handshake if context is not None else None
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._made: set[asyncio.Task[object]] = set()
        self._calm: asyncio.TimerHandle | None = None
        self._failing_since = 0.0
        self._said_at: float | None = None
        self._said = False

    def begin(self, backlog: int) -> None:
        """Accepts from now on, with room for `backlog` connections that wait."""
        self._socket.setblocking(False)
        self._socket.listen(backlog)
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(_TURN):
            try:
                connection, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._wait(error)
                return
            connection.setblocking(False)
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        protocol = self._protocol()
        making = self._loop.create_task(
            self._loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake,
            )
        )
        self._made.add(making)
        making.add_done_callback(self._is_made)

    def _is_made(self, making: asyncio.Task[object]) -> None:
        self._made.discard(making)
        if not making.cancelled():
            making.exception()  # a client that breaks off its handshake is no news

    def _wait(self, error: OSError) -> None:
        """The socket stays readable, so that only looking away for a moment keeps the loop free."""
        self._loop.remove_reader(self._socket)
        self._again = self._loop.call_later(_PAUSE, self._try_again)
        now = time.monotonic()
        if self._calm is None:
            self._failing_since = now
        else:
            self._calm.cancel()
        self._calm = self._loop.call_later(_CALM, self._recovered)
        if self._said_at is None or now - self._said_at >= SAY_AGAIN:
            self._said_at, self._said = now, True
            self._say(
                "error",
                "connections cannot be accepted",
                error=error.strerror or str(error),
                nofile=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                next_action="they wait until they can be",
            )

    def _try_again(self) -> None:
        self._loop.add_reader(self._socket, self._accept)

    def _recovered(self) -> None:
        self._calm = None
        if self._said:
            self._said = False
            seconds = round(time.monotonic() - self._failing_since, 1)
            self._say("info", "connections are accepted again", seconds=seconds)

    def close(self) -> None:
        """Accepts no more. The socket is its owner's to close."""
        for timer in (self._again, self._calm):
            if timer is not None:
                timer.cancel()
        with contextlib.suppress(OSError, ValueError):  # it was closed before
            self._loop.remove_reader(self._socket)

    async def wait_closed(self) -> None:
        """Nothing is left to wait for: connections are their server's."""
