"""Reports clock jumps and pauses. No wait depends on them: servd uses CLOCK_MONOTONIC."""

from __future__ import annotations

import time

import structlog

from servd.core.events import Event
from servd.daemon.periodic import Periodic

_CHECK_SECONDS = 1.0
_NOTABLE_SECONDS = 2.0
"""Shortest jump or pause that is reported."""

log = structlog.get_logger()


class ClockWatch:
    """Compares the wall clock with the monotonic one."""

    def __init__(self) -> None:
        self._seen: tuple[float, float] | None = None
        self.looks = Periodic(_CHECK_SECONDS, self._look)

    def _look(self) -> None:
        before, self._seen = self._seen, (time.monotonic(), time.time())
        if before is None:
            return
        passed, shown = (after - earlier for after, earlier in zip(self._seen, before, strict=True))
        if abs(shown - passed) >= _NOTABLE_SECONDS:
            log.warning(
                Event.CLOCK_JUMPED,
                seconds=round(shown - passed, 1),
                next_action="log timestamps change; timeouts and delays do not",
            )
        if passed - _CHECK_SECONDS >= _NOTABLE_SECONDS:
            log.warning(Event.SERVD_WAS_HELD_UP, seconds=round(passed - _CHECK_SECONDS, 1))
