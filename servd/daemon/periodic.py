"""Something that is done again and again for as long as the daemon lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from servd.core.events import Event

log = structlog.get_logger()


class Periodic:
    """Does `work` every so many seconds, the first time at once or (`later`) after that time. A
    failure is said, and no reason to stop.
    """

    def __init__(
        self, seconds: float, work: Callable[[], Awaitable[None]], *, later: bool = False
    ) -> None:
        self._seconds = seconds
        self._work = work
        self._later = later
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def stop(self) -> None:
        """Ends, whatever it is doing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _go_on(self) -> None:
        if self._later:
            await asyncio.sleep(self._seconds)
        while True:
            try:
                await self._work()
            except Exception:
                log.exception(Event.INTERNAL_ERROR)
            await asyncio.sleep(self._seconds)
