"""Saying that the clock was set, or that everything stood still. Nothing else has to be done: what
servd waits for, it measures with a clock that nobody sets (`CLOCK_MONOTONIC`).
"""

from __future__ import annotations

import time

import structlog

from servd.core.events import Event
from servd.daemon.periodic import Periodic

LOOK_EVERY = 1.0
NOTABLE = 2.0
"""Seconds from which on a jump or a pause is said."""

log = structlog.get_logger()


class ClockWatch:
    """Compares the clock of the wall with the monotonic one."""

    def __init__(self) -> None:
        self._seen: tuple[float, float] | None = None
        self.looks = Periodic(LOOK_EVERY, self._look)

    async def _look(self) -> None:
        before, self._seen = self._seen, (time.monotonic(), time.time())
        if before is None:
            return
        passed, shown = (after - earlier for after, earlier in zip(self._seen, before, strict=True))
        if abs(shown - passed) >= NOTABLE:
            log.warning(
                Event.CLOCK_JUMPED,
                seconds=round(shown - passed, 1),
                next_action="times in the log jump with it; timeouts and pauses do not",
            )
        if passed - LOOK_EVERY >= NOTABLE:
            log.warning(Event.SERVD_WAS_HELD_UP, seconds=round(passed - LOOK_EVERY, 1))
