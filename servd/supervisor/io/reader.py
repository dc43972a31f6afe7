"""Reads what services write on the daemon's loop, within a bounded share of its time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from servd.supervisor.io.rest import Rest

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
    the bytes that it took, or whether there may be more. While the reader pauses, a pipe fills up
    and its writer waits. With a `rest`, what comes soon after the last turn waits for its end.
    """

    def __init__(
        self, descriptor: int, step: Callable[[], int], budget: ReadBudget, rest: Rest | None = None
    ) -> None:
        self._descriptor = descriptor
        self._step = step
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rest = rest
        self._worked_at = -math.inf
        self._is_busy = False
        self._closed = False
        self._loop.add_reader(descriptor, self._turn)

    def _turn(self) -> None:
        began = time.monotonic()
        more = worked = 0
        try:
            while more := self._step():
                worked += more
                if time.monotonic() >= began + SLICE_SECONDS:
                    break
        finally:  # also after a fault: the descriptor goes on being read
            if more:
                self._pause()
            elif worked and self._rest is not None and not self._is_busy:
                self._rest_after(self._rest, worked, began)
            else:
                self._resume()
            if worked:
                self._worked_at = began

    def _rest_after(self, rest: Rest, worked: int, began: float) -> None:
        if began - self._worked_at < 2 * rest.seconds:
            self._wait(rest.after(worked, self._loop.time()))
        else:
            self._resume()

    def _pause(self) -> None:
        if not self._is_busy and not self._closed:
            self._is_busy = True
            self._budget.busy += 1
        self._wait(self._budget.pause)

    def _wait(self, seconds: float) -> None:
        if self._closed:
            return
        if self._timer is None:
            self._loop.remove_reader(self._descriptor)
        self._timer = self._loop.call_later(seconds, self._turn)

    def _resume(self) -> None:
        if self._closed:
            return
        if self._is_busy:
            self._is_busy = False
            self._budget.busy -= 1
        if self._timer is not None:
            self._timer = None
            self._loop.add_reader(self._descriptor, self._turn)

    def close(self) -> None:
        """Stops reading. The descriptor stays open."""
        if self._closed:
            return
        self._closed = True
        if self._is_busy:
            self._budget.busy -= 1
        if self._timer is not None:
            self._timer.cancel()
        else:
            self._loop.remove_reader(self._descriptor)
