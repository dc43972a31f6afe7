"""A clock that stands still until a test moves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class ManualTimer:
    """A call that is due at `when`."""

    when: float
    callback: Callable[[], object]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class ManualClock:
    """The part of an event loop that schedules calls; `advance` makes those that are due."""

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[ManualTimer] = []

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(when, callback)
        self._timers.append(timer)
        return timer

    def call_later(self, seconds: float, callback: Callable[[], object]) -> ManualTimer:
        return self.call_at(self._now + seconds, callback)

    @property
    def pending(self) -> int:
        """How many calls are still to be made."""
        return sum(not timer.is_cancelled for timer in self._timers)

    def advance(self, seconds: float) -> None:
        """Makes every call that becomes due, each at its own time."""
        end = self._now + seconds
        while due := [t for t in self._timers if not t.is_cancelled and t.when <= end]:
            timer = min(due, key=lambda each: each.when)
            self._timers.remove(timer)
            self._now = max(self._now, timer.when)
            timer.callback()
        self._now = end
