"""How many connections and free places each worker of a service has, in memory that they share, so
that a burst of new ones is spread evenly and none waits behind a full worker while another is free.
A word per worker, with one writer and so without locks. Standard library only.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import NamedTuple

from servd.wire.sealed_memory import create

_SIZE = mmap.PAGESIZE
_MOST = _SIZE // 8 - 1
"""Workers that find a seat; others accept as if they were alone."""

_LAST = 0
"""The word that holds the highest seat in use, which the daemon writes. The seats follow it. The
word of a seat is 0 while its worker does not accept. Otherwise it has, from its lowest bit on: the
number of connections and 1, of free places and 1 (0: without a limit), and how often it was told.
"""

_CONNECTION_BITS, _PLACE_BITS, _COUNT_BITS = 24, 20, 19
_CONNECTIONS = (1 << _CONNECTION_BITS) - 1
_PLACES = (1 << _PLACE_BITS) - 1
_COUNTS = (1 << _COUNT_BITS) - 1
_COUNT_SHIFT = _CONNECTION_BITS + _PLACE_BITS
UNLIMITED = _PLACES
"""The free places of a worker without a limit."""


class Sibling(NamedTuple):
    """What another worker tells. `told` changes each time that one with a limit tells something:
    it is alive.
    """

    seat: int
    connections: int
    free: int
    told: int


class Board:
    """The daemon's side: one for all workers of a service, of all its generations."""

    def __init__(self, name: str) -> None:
        """Raises OSError."""
        self.descriptor = create(name, _SIZE)
        try:
            memory = mmap.mmap(self.descriptor, _SIZE)  # duplicates the descriptor
        except OSError:
            os.close(self.descriptor)
            raise
        self._words = memoryview(memory).cast("q")
        self._taken: set[int] = set()

    def take(self) -> int:
        """Returns a seat for a new worker; 0 if there is none."""
        seat = next((each for each in range(1, _MOST + 1) if each not in self._taken), 0)
        if seat:
            self._taken.add(seat)
            self._tell_last()
        return seat

    def give_back(self, seat: int) -> None:
        """Frees the seat of a worker that has ended."""
        if seat:
            self._words[seat] = 0
            self._taken.discard(seat)
            self._tell_last()

    def _tell_last(self) -> None:
        self._words[_LAST] = max(self._taken, default=0)

    def close(self) -> None:
        """Releases the daemon's hold of the memory."""
        os.close(self.descriptor)


class Seat:
    """A worker's side: its own word, and those of the others."""

    def __init__(self, descriptor: int, seat: int) -> None:
        """Uses the memory of `descriptor`, which is closed."""
        self._words = memoryview(mmap.mmap(descriptor, _SIZE)).cast("q")
        self._seat = seat
        self._told = 0
        os.close(descriptor)

    def publish(self, connections: int, free: int | None = None) -> None:
        """Tells the others that this worker accepts, how many connections it has, and how many
        free places; None without a limit.
        """
        if not self._seat:
            return
        word = min(connections + 1, _CONNECTIONS)
        if free is not None:
            self._told = (self._told + 1) & _COUNTS
            places = min(max(free, 0), _PLACES - 1) + 1
            word |= places << _CONNECTION_BITS | self._told << _COUNT_SHIFT
        self._words[self._seat] = word

    def leave(self) -> None:
        """Tells the others that this worker accepts no more."""
        if self._seat:
            self._words[self._seat] = 0

    def others(self) -> list[int]:
        """Returns the connections of each other worker that accepts."""
        return [(word & _CONNECTIONS) - 1 for word in self._others() if word & _CONNECTIONS]

    def siblings(self) -> list[Sibling]:
        """Returns what each other worker that accepts tells."""
        found = []
        for seat, word in enumerate(self._others(), 1):
            if connections := word & _CONNECTIONS:
                places = word >> _CONNECTION_BITS & _PLACES
                free = places - 1 if places else UNLIMITED
                found.append(Sibling(seat, connections - 1, free, word >> _COUNT_SHIFT))
        return found

    def _others(self) -> list[int]:
        words = self._words
        last = min(max(words[_LAST], 0), _MOST)
        found = words[1 : last + 1].tolist()
        if 0 < self._seat <= last:
            found[self._seat - 1] = 0
        return found


def share(mine: int, others: Sequence[int], waiting: int) -> int:
    """Returns how many of the `waiting` connections are for a worker that has `mine`, when they are
    dealt out one by one to whoever has the fewest. Where it is one too many for some, each may take
    it: whoever is first does.
    """
    level = waiting
    poured = 0
    for index, load in enumerate(sorted([mine, *others])):
        # all below are raised to the height of this one: is that more than there is?
        if load * index - poured >= waiting:
            break
        poured += load
        level = -(-(waiting + poured) // (index + 1))
    return min(waiting, max(0, level - mine))


def share_by_places(mine: int, free: int, others: Sequence[Sibling], waiting: int) -> int:
    """Returns what `share` does, for a worker that has `free` places: connections are dealt out to
    workers with a free place while there is one, and to all from then on.

    Where more wait than there are places, one that already has more connections than its share
    takes none for now: a burst of short requests would pile up at whoever has a free place again
    before the others have woken.
    """
    free = max(free, 0)
    places = free + sum(each.free for each in others)
    if waiting <= places:
        return min(waiting, _poured(mine, free, others, waiting))
    loads = [each.connections for each in others]
    if share(mine, loads, waiting) == 0:
        return 0
    raised = [each.connections + each.free for each in others]
    return free + share(mine + free, raised, waiting - places)


def _poured(mine: int, free: int, others: Sequence[Sibling], waiting: int) -> int:
    """Returns how much of `waiting` is this one's, up to `free`, when all are filled to one height,
    each up to its free places.
    """
    low, high = 0, max([mine, *(each.connections for each in others)]) + waiting
    while low < high:
        level = (low + high) // 2
        held = min(free, max(0, level - mine))
        held += sum(min(each.free, max(0, level - each.connections)) for each in others)
        if held >= waiting:
            high = level
        else:
            low = level + 1
    return min(free, max(0, low - mine))
