"""Reads what services write on the daemon's loop, within a bounded share of its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

SLICE_SECONDS = 0.005
"""Time that one descriptor may take of the loop in a turn."""

_PAUSE_FACTOR = 4
"""After a full slice a descriptor is left alone for so many slices, times the number of busy ones:
all of them together take at most a fifth of the loop's time.
"""


class ReadBudget:
    """Counts the descriptors that are written to faster than they may be read."""

    def __init__(self) -> None:
        self.busy = 0

    @property
    def pause(self) -> float:
        """Seconds that a busy descriptor waits for its next slice."""
        return SLICE_SECONDS * _PAUSE_FACTOR * max(1, self.busy)


class BoundedReader:
    """Calls `step` while the descriptor is readable. `step` does a small piece of work, and returns
    whether there may be more. While the reader pauses, a pipe fills up and its writer waits.
    """

    def __init__(self, descriptor: int, step: Callable[[], bool], budget: ReadBudget) -> None:
        self._descriptor = descriptor
        self._step = step
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop.add_reader(descriptor, self._turn)

    def _turn(self) -> None:
        end = time.monotonic() + SLICE_SECONDS
        more = False
        try:
            while more := self._step():
                if time.monotonic() >= end:
                    break
        finally:  # also after a fault: the descriptor goes on being read
            if more:
                self._pause()
            else:
                self._resume()

    def _pause(self) -> None:
        if self._closed:
            return
        if self._timer is None:
            self._loop.remove_reader(self._descriptor)
            self._budget.busy += 1
        self._timer = self._loop.call_later(self._budget.pause, self._turn)

    def _resume(self) -> None:
        if self._timer is not None and not self._closed:
            self._timer = None
            self._budget.busy -= 1
            self._loop.add_reader(self._descriptor, self._turn)

    def close(self) -> None:
        """Stops reading. The descriptor stays open."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._budget.busy -= 1
        else:
            self._loop.remove_reader(self._descriptor)
