"""Accepts connections. When descriptors run out, they wait in the socket's queue: asyncio's own
accept would log each every second, and libuv's reset them all. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import resource
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from servd.http.balance import Balance

if TYPE_CHECKING:
    from ssl import SSLContext

_ACCEPTS_PER_TURN = 64
"""Most connections accepted in one iteration of the loop."""

_LEAVE_SECONDS = 0.002
"""Time that connections are left to siblings with fewer: those may be busy."""

_PATIENT_TURNS = 125
"""How often in a row a worker without a free place leaves them to siblings that have one."""

_RETRY_SECONDS = 0.1
"""Pause after a failed accept."""

_RECOVERY_SECONDS = 1.0
"""Time without a failure until accepting counts as recovered."""

_LOG_AGAIN_SECONDS = 60.0
"""Time between two logs of a failure, lasting or intermittent."""

Say = Callable[..., None]
"""Logs an event: level, name, and fields as keywords."""


class Acceptor:
    """Accepts connections, each for a new protocol, in place of a server in `Server.servers`."""

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        say: Say,
        *,
        context: SSLContext | None = None,
        handshake: float | None = None,
        balance: Balance | None = None,
    ) -> None:
        """`handshake`: seconds for one of TLS. `balance`: others accept from the same socket."""
        self._socket = sock
        self._protocol = protocol
        self._say = say
        self._context = context
        self._handshake = handshake if context is not None else None
        self._balance = balance
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._left = 0
        self._made: set[asyncio.Task[object]] = set()
        self._recovery: asyncio.TimerHandle | None = None
        self._failing_since = 0.0
        self._said_at: float | None = None
        self._said = False

    def begin(self, backlog: int) -> None:
        """Starts accepting, with a queue of `backlog` connections."""
        self._socket.setblocking(False)
        self._socket.listen(backlog)
        if self._balance is not None:
            self._balance.begin()
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        if self._balance is None:
            self._accept_some(_ACCEPTS_PER_TURN)
            return
        count = self._balance.share(self._socket, _ACCEPTS_PER_TURN)
        if count:
            self._accept_some(count)
        elif count == 0:  # the loop would call this again at once
            self._loop.remove_reader(self._socket)
            self._left = 0
            self._retry = self._loop.call_later(_LEAVE_SECONDS, self._accept_rest)

    def _accept_rest(self) -> None:
        """Takes some of the connections that were left to siblings and still wait."""
        assert self._balance is not None
        self._left += 1
        patient = self._left < _PATIENT_TURNS
        count = self._balance.rest(self._socket, _ACCEPTS_PER_TURN, patient=patient)
        if count is None:
            self._retry = self._loop.call_later(_LEAVE_SECONDS, self._accept_rest)
            return
        self._loop.add_reader(self._socket, self._accept)
        self._accept_some(count)

    def _accept_some(self, count: int) -> None:
        for _ in range(count):
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
        if self._balance is not None:
            self._balance.accepted(protocol)
        connecting = self._loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=self._context, ssl_handshake_timeout=self._handshake
        )
        making = self._loop.create_task(connecting)
        self._made.add(making)
        making.add_done_callback(functools.partial(self._is_made, protocol))

    def _is_made(self, protocol: asyncio.Protocol, making: asyncio.Task[object]) -> None:
        self._made.discard(making)
        if self._balance is not None:
            self._balance.made(protocol)
        if not making.cancelled():
            making.exception()  # marked as retrieved: an aborted handshake is not logged

    def _wait(self, error: OSError) -> None:
        """Pauses the reader: the socket stays readable and would keep the loop busy."""
        self._loop.remove_reader(self._socket)
        self._retry = self._loop.call_later(_RETRY_SECONDS, self._try_again)
        now = time.monotonic()
        if self._recovery is None:
            self._failing_since = now
        else:
            self._recovery.cancel()
        self._recovery = self._loop.call_later(_RECOVERY_SECONDS, self._recovered)
        if self._said_at is None or now - self._said_at >= _LOG_AGAIN_SECONDS:
            self._said_at, self._said = now, True
            self._say(
                "error",
                "cannot accept connections",
                error=error.strerror or str(error),
                nofile=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                next_action="connections wait in the queue",
            )

    def _try_again(self) -> None:
        self._loop.add_reader(self._socket, self._accept)

    def _recovered(self) -> None:
        self._recovery = None
        if self._said:
            self._said = False
            seconds = round(time.monotonic() - self._failing_since, 1)
            self._say("info", "accepting connections again", seconds=seconds)

    def close(self) -> None:
        """Stops accepting. The owner closes the socket."""
        if self._balance is not None:
            self._balance.leave()
        for timer in (self._retry, self._recovery):
            if timer is not None:
                timer.cancel()
        with contextlib.suppress(OSError, ValueError):  # already closed
            self._loop.remove_reader(self._socket)

    async def wait_closed(self) -> None:
        """Returns immediately: the server waits for its connections."""
