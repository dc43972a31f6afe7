"""How many connections each worker of a service has, in memory that they share, so that a burst of
new ones is spread evenly. A word per worker, with one writer and so without locks. Standard library
only.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

from servd.wire.sealed_memory import create

_SIZE = mmap.PAGESIZE
_MOST = _SIZE // 8 - 1
"""Workers that find a seat; others accept as if they were alone."""

_LAST = 0
"""The word that holds the highest seat in use, which the daemon writes. The seats follow it. The
word of a seat is the number of connections and 1, or 0 while its worker does not accept.
"""


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
        os.close(descriptor)

    def publish(self, connections: int) -> None:
        """Tells the others that this worker accepts, and how many connections it has."""
        if self._seat:
            self._words[self._seat] = connections + 1

    def leave(self) -> None:
        """Tells the others that this worker accepts no more."""
        if self._seat:
            self._words[self._seat] = 0

    def others(self) -> list[int]:
        """Returns the connections of each other worker that accepts."""
        words = self._words
        last = min(max(words[_LAST], 0), _MOST)
        found = words[1 : last + 1].tolist()
        if 0 < self._seat <= last:
            found[self._seat - 1] = 0
        return [each - 1 for each in found if each > 0]


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
