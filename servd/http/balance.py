"""How many of the connections that wait a worker takes, beside its siblings on the same socket.

Every worker wakes when one comes, and one that is quick finds a whole burst: with asyncio's and
with libuv's loop alike, all of it may land on one worker. And with a limit of requests
(`limits.concurrency`), one that has no free place would let a request wait, or refuse it, beside an
idle sibling: it leaves the connection in the queue of the socket. Standard library only.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

from servd.wire.accept_board import Seat, Sibling, share, share_by_places

_WAITING = struct.Struct("=24xI")
"""`tcpi_unacked` of a listening socket is the length of its accept queue (tcp_diag.c of Linux)."""

_REST = 4
"""Connections that a worker accepts per turn where it does not know how many wait."""

_CLAIM_SECONDS = 0.25
"""Time for which a new connection without a request counts as one: its request is on the way."""

_MOVE_SECONDS = 0.1
"""Time in which at most as many clients are sent elsewhere as there are free places."""


class Connections(set[Any]):
    """The connections of a server, whose number is told to its siblings when one ends."""

    def __init__(self, balance: Balance) -> None:
        super().__init__()
        self._balance = balance

    def discard(self, connection: Any) -> None:
        """Extends the set's method."""
        super().discard(connection)
        self._balance.lost(connection)

    def remove(self, connection: Any) -> None:
        """Extends the set's method."""
        super().remove(connection)
        self._balance.lost(connection)


class Balance:
    """Tells siblings what this worker has, and what is its share."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self.connections = Connections(self)
        """For Uvicorn's `ServerState`."""
        self.places: Callable[[], int] | None = None
        """Returns the free places of this worker; None without a limit."""
        self._accepts = False
        self.pending: set[Any] = set()
        """Accepted connections, some of which are not among `connections` yet."""
        self.claims: dict[Any, float] = {}
        """Accepted connections that have sent no request yet, and until when each has a claim on a
        place. Only with a limit.
        """
        self._claims_end: asyncio.TimerHandle | None = None
        self._doubted: dict[int, Sibling] = {}
        """What siblings told that claimed to be free and took nothing: they are stopped."""
        self._moved, self._moved_since = 0, 0.0

    @property
    def _load(self) -> int:
        if not self.pending:
            return len(self.connections)
        return len(self.connections) + len(self.pending - self.connections)

    @property
    def _free(self) -> int | None:
        return None if self.places is None else self.places() - len(self.claims)

    @property
    def is_alone(self) -> bool:
        """Whether no other worker of the service accepts."""
        return not self._seat.others()

    def publish(self) -> None:
        """Tells the siblings the number of connections and of free places, while it accepts."""
        if self._accepts:
            self._seat.publish(self._load, self._free)

    def begin(self) -> None:
        """Tells the siblings that this worker accepts."""
        self._accepts = True
        self.publish()

    def leave(self) -> None:
        """Tells the siblings that this worker accepts no more."""
        self._accepts = False
        self._seat.leave()

    def accepted(self, connection: Any) -> None:
        """Counts a new connection before it is among `connections`."""
        self.pending.add(connection)
        if self.places is not None:
            loop = asyncio.get_running_loop()
            self.claims[connection] = loop.time() + _CLAIM_SECONDS
            if self._claims_end is None:
                self._claims_end = loop.call_later(_CLAIM_SECONDS, self._end_claims, loop)
        self.publish()

    def made(self, connection: Any) -> None:
        """Counts a new connection as one of `connections`, or as ended if it is not among them."""
        self.pending.discard(connection)
        if connection not in self.connections:
            self.lost(connection)

    def lost(self, connection: Any) -> None:
        """Tells the siblings that a connection has ended."""
        self.claims.pop(connection, None)
        self.publish()

    def asked(self, connection: Any) -> None:
        """Ends the claim of a connection: its request has arrived. Whoever takes a place for it
        tells the siblings.
        """
        self.claims.pop(connection, None)

    def _end_claims(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends the claims that are too old, but not during a handshake of TLS."""
        now = loop.time()
        for connection in [each for each, until in self.claims.items() if until <= now]:
            del self.claims[connection]
            if connection in self.pending:
                self.claims[connection] = now + _CLAIM_SECONDS
        self.publish()
        self._claims_end = None
        if self.claims:
            pause = max(0.0, next(iter(self.claims.values())) - now)
            self._claims_end = loop.call_later(pause, self._end_claims, loop)

    def share(self, sock: socket.socket, most: int) -> int | None:
        """Returns how many of those that wait this worker should take, `most` at most; None if
        none waits any more.
        """
        self.publish()
        free = self._free
        if free is None:
            loads = self._seat.others()
            if not loads:
                return most
            queue = waiting(sock)
            if queue == 0:
                return None
            return min(most, share(self._load, loads, 1 if queue is None else queue))
        siblings = self._trusted()
        if not siblings:
            return most
        queue = waiting(sock)
        if queue == 0:
            return None
        return min(most, share_by_places(self._load, free, siblings, queue or 1))

    def rest(self, sock: socket.socket, most: int, *, patient: bool = False) -> int | None:
        """Returns how many it takes of those that its siblings did not: they are busy. None if it
        should leave them once more, while it is `patient`: it is full, and a sibling is not.
        """
        queue = waiting(sock)
        parts = len(self._seat.others()) + 1
        count = min(most, _REST if queue is None else -(-queue // parts))
        free = self._free
        if free is None or count == 0:
            return count
        if free > 0:
            return min(count, free)
        able = [each for each in self._trusted() if each.free]
        if able and (queue is not None or _is_ready(sock)):
            if patient:
                return None
            self._doubted.update((each.seat, each) for each in able)
        return count

    def free_elsewhere(self) -> int:
        """Returns how many places are free at siblings."""
        return sum(each.free for each in self._trusted())

    def may_move(self) -> bool:
        """Returns whether a client should connect anew, because a sibling has a free place: not
        more of them than such places, which take a moment to fill.
        """
        now = asyncio.get_running_loop().time()
        if now - self._moved_since >= _MOVE_SECONDS:
            self._moved, self._moved_since = 0, now
        if self._moved >= self.free_elsewhere():
            return False
        self._moved += 1
        return True

    def _trusted(self) -> list[Sibling]:
        """Returns what siblings tell; those in doubt have no place until they tell something."""
        siblings = self._seat.siblings()
        if not self._doubted:
            return siblings
        doubted = self._doubted
        self._doubted = {each.seat: each for each in siblings if doubted.get(each.seat) == each}
        return [each._replace(free=0) if each.seat in self._doubted else each for each in siblings]


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


def _is_ready(sock: socket.socket) -> bool:
    """Whether a connection waits at a listening socket, of any family."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
