"""Work that repeats for as long as the daemon lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from servd.core.events import Event

log = structlog.get_logger()


class Periodic:
    """Runs `work` every `seconds` s, immediately or `later`; logs exceptions and continues."""

    def __init__(
        self, seconds: float, work: Callable[[], Awaitable[None] | None], *, later: bool = False
    ) -> None:
        self._seconds = seconds
        self._work = work
        self._later = later
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Cancels the work and waits for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        if self._later:
            await asyncio.sleep(self._seconds)
        while True:
            try:
                waiting = self._work()
                if waiting is not None:
                    await waiting
            except Exception:
                log.exception(Event.INTERNAL_ERROR)
            await asyncio.sleep(self._seconds)
