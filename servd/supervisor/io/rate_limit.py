"""A limit on what each service prints: lines beyond it are dropped and counted."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from servd.core.events import Event

REPORT_SECONDS = 10.0
"""Shortest time between two reports of dropped lines of one service."""

log = structlog.get_logger()


class LineRate:
    """Admits `rate` lines a second (0: all), and as many at once. `report` receives the number of
    lines that were dropped, at most every `REPORT_SECONDS`. `dropped` counts all of them.
    """

    def __init__(
        self, rate: int, report: Callable[[int], None], clock: Callable[[], float]
    ) -> None:
        self.rate = rate
        self.dropped = 0
        self._report = report
        self._clock = clock
        self._left = float(rate)
        self._at = self._report_at = clock()
        self._unreported = 0

    def admit(self, lines: int) -> int:
        """Returns how many of `lines` may be logged now; counts the others as dropped."""
        if not self.rate:
            return lines
        now = self._clock()
        self._left = min(self.rate, self._left + (now - self._at) * self.rate)
        self._at = now
        admitted = min(lines, int(self._left))
        self._left -= admitted
        self.dropped += lines - admitted
        self._unreported += lines - admitted
        if self._unreported and now >= self._report_at:
            self.report()
        return admitted

    def report(self) -> None:
        """Reports what was dropped since the last report."""
        if self._unreported:
            dropped, self._unreported = self._unreported, 0
            self._report_at = self._clock() + REPORT_SECONDS
            self._report(dropped)


class LineRates:
    """The limit of each service, which its workers share."""

    def __init__(self) -> None:
        self._by_service: dict[str, LineRate] = {}

    @property
    def dropped(self) -> int:
        """All dropped lines of all services."""
        return sum(rate.dropped for rate in self._by_service.values())

    def of(self, service: str, rate: int) -> LineRate:
        """Returns the limit of a service, set to `rate`."""
        found = self._by_service.get(service)
        if found is None:
            found = LineRate(rate, lambda lines: self._report(service, lines), time.monotonic)
            self._by_service[service] = found
        found.rate = rate
        return found

    def _report(self, service: str, lines: int) -> None:
        rate = self._by_service[service].rate
        log.warning(Event.OUTPUT_DROPPED, service=service, lines=lines, lines_per_second=rate)
