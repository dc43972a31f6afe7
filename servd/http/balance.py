"""How many of the connections that wait a worker takes, beside its siblings on the same socket.

Every worker wakes when one comes, and one that is quick finds a whole burst: with asyncio's and
with libuv's loop alike, all of it may land on one worker. Standard library only.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from servd.wire.accept_board import Seat, share

_WAITING = struct.Struct("=24xI")
"""`tcpi_unacked` of a listening socket is the length of its accept queue (tcp_diag.c of Linux)."""

_REST = 4
"""Connections that a worker accepts per turn where it does not know how many wait."""


class Connections(set[Any]):
    """The connections of a server, whose number is told to its siblings when one ends."""

    def __init__(self, balance: Balance) -> None:
        super().__init__()
        self._balance = balance

    def discard(self, connection: Any) -> None:
        """Extends the set's method."""
        super().discard(connection)
        self._balance.publish()

    def remove(self, connection: Any) -> None:
        """Extends the set's method."""
        super().remove(connection)
        self._balance.publish()


class Balance:
    """Tells siblings what this worker has, and what is its share."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self.connections = Connections(self)
        """For Uvicorn's `ServerState`."""
        self._accepts = False
        self.pending: set[Any] = set()
        """Accepted connections, some of which are not among `connections` yet."""

    @property
    def _load(self) -> int:
        return len(self.connections) + len(self.pending - self.connections)

    def publish(self) -> None:
        """Tells the siblings the number of connections, while it accepts."""
        if self._accepts:
            self._seat.publish(self._load)

    def begin(self) -> None:
        """Tells the siblings that this worker accepts."""
        self._accepts = True
        self.publish()

    def leave(self) -> None:
        """Tells the siblings that this worker accepts no more."""
        self._accepts = False
        self._seat.leave()

    def share(self, sock: socket.socket, most: int) -> int | None:
        """Returns how many of those that wait this worker should take, `most` at most; None if
        none waits any more.
        """
        self.publish()
        others = self._seat.others()
        if not others:
            return most
        queue = waiting(sock)
        if queue == 0:
            return None
        return min(most, share(self._load, others, 1 if queue is None else queue))

    def rest(self, sock: socket.socket, most: int) -> int:
        """Returns how many it takes of those that its siblings did not: they are busy."""
        queue = waiting(sock)
        parts = len(self._seat.others()) + 1
        return min(most, _REST if queue is None else -(-queue // parts))


def waiting(sock: socket.socket) -> int | None:
    """Returns how many connections wait at a listening socket; None where the kernel does not tell:
    at a unix socket, outside Linux.
    """
    if sock.family == socket.AF_UNIX:
        return None
    try:
        found = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _WAITING.size)
        (count,) = _WAITING.unpack(found)
    except (OSError, AttributeError, struct.error):
        return None
    return int(count)
