"""Turns a burst of triggers into one action."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

LONGEST_FACTOR = 5
"""A burst that never pauses is acted on after this many times the quiet time."""


class ClockTimer(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Prevents the call."""


class TimerClock(Protocol):
    """What a `Debounce` measures time with: an event loop has it."""

    def time(self) -> float:
        """Returns the current time, in seconds."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> ClockTimer:
        """Schedules a call for the time `when`."""


class Debounce:
    """Calls `act` after a quiet time without triggers. `clock`: by default the running loop."""

    def __init__(self, act: Callable[[], object], clock: TimerClock | None = None) -> None:
        self._act = act
        self._clock: TimerClock = clock or asyncio.get_running_loop()
        self._timer: ClockTimer | None = None
        self._since = 0.0

    def trigger(self, quiet_seconds: float) -> None:
        """Schedules the action `quiet_seconds` from now instead of when it was due; at the latest
        `LONGEST_FACTOR` times as long after the first trigger.
        """
        if self._timer is None:
            self._since = self._clock.time()
        else:
            self._timer.cancel()
        latest = self._since + LONGEST_FACTOR * quiet_seconds
        self._timer = self._clock.call_at(
            min(self._clock.time() + quiet_seconds, latest), self._fire
        )

    def cancel(self) -> None:
        """Prevents an action that is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._act()
