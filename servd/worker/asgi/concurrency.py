"""`limits.concurrency` and `limits.queue`: how many requests run at once, and how many may wait."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Callable


class ConcurrencyLimiter:
    """A bounded number of places, first come, first served. `waits` is told how many wait."""

    def __init__(self, places: int, queue: int, waits: Callable[[int], None]) -> None:
        self.free = places
        self.queue = queue
        self.waits = waits
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()

    @property
    def full(self) -> bool:
        """Whether neither a place nor one in the queue is left."""
        return self.free <= 0 and len(self._waiting) >= self.queue

    async def take(self) -> None:
        """Takes a place, waiting for one."""
        if self.free > 0:
            self.free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self.waits(len(self._waiting))
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.give()  # its turn came as it left
            else:
                with contextlib.suppress(ValueError):  # `give` has passed it over
                    self._waiting.remove(turn)
            raise
        finally:
            self.waits(len(self._waiting))

    def give(self) -> None:
        """Gives a place back, to whoever waits longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
