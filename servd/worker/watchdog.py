"""Sends WATCHDOG=1 from the event loop (sd_watchdog_enabled(3)): a blocked loop sends none."""

from __future__ import annotations

import asyncio

from servd.wire.notify import notify

_SIGNALS_PER_PERIOD = 3


class Watchdog:
    """Sends three signals per `seconds`, the limit for a silent worker; none for None."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._next: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Starts in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._beat()

    def set_period(self, seconds: float | None) -> None:
        """Changes the period, in seconds."""
        self.seconds = seconds
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._beat()

    def _beat(self) -> None:
        if self.seconds is not None and self._loop is not None:
            notify("WATCHDOG=1", wait=False)  # a busy daemon must not block the loop
            self._next = self._loop.call_later(self.seconds / _SIGNALS_PER_PERIOD, self._beat)
