"""Limits how many requests run in parallel (`limits.concurrency`) and may wait (`limits.queue`)."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Callable

_MANY = 64
"""Free permits of which nobody needs the exact number: a worker accepts no more in one turn."""


class ConcurrencyLimiter:
    """Grants permits, first come, first served. `report_waiting` receives the queue's length;
    `changed` is called when a permit is taken or returned, unless many are free.
    """

    def __init__(
        self,
        permits: int,
        queue: int,
        report_waiting: Callable[[int], None],
        changed: Callable[[], None],
    ) -> None:
        self.free = permits
        self.queue = queue
        self.report_waiting = report_waiting
        self._changed = changed
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()

    def is_full(self, beyond: int = 0) -> bool:
        """Returns whether all permits are taken, and the queue is full with `beyond` more."""
        return self.free <= 0 and len(self._waiting) >= self.queue + beyond

    def take(self) -> None:
        """Takes a permit that is free."""
        self.free -= 1
        if self.free < _MANY:
            self._changed()

    async def acquire(self) -> None:
        """Waits for a permit and takes it."""
        if self.free > 0:
            self.take()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self.report_waiting(len(self._waiting))
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.release()  # the permit was granted during the cancellation
            else:
                with contextlib.suppress(ValueError):  # `release` has skipped it
                    self._waiting.remove(turn)
            raise
        finally:
            self.report_waiting(len(self._waiting))

    def release(self) -> None:
        """Returns a permit, to the request that has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
        if self.free <= _MANY:
            self._changed()
