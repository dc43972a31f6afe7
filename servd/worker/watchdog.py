"""The worker's sign of life: WATCHDOG=1 from the event loop itself (sd_watchdog_enabled(3)), so
that what cannot turn any more sends none.
"""

from __future__ import annotations

import asyncio

from servd.wire.notify import notify

_BEATS = 3
"""Signs of life in the time after which a silent worker is replaced."""


class Watchdog:
    """Sends signs of life, three in every `seconds`; none without."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._next: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begins, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._beat()

    def every(self, seconds: float | None) -> None:
        """Takes another time over."""
        self.seconds = seconds
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._loop is not None:
            self._beat()

    def _beat(self) -> None:
        if self.seconds is not None and self._loop is not None:
            notify("WATCHDOG=1", wait=False)  # a daemon that is held up holds nobody up
            self._next = self._loop.call_later(self.seconds / _BEATS, self._beat)
