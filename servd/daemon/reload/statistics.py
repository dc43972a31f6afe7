"""Statistics of all reloads."""

from __future__ import annotations

from bisect import bisect_left
from typing import get_args

from servd.daemon.reload.request import Outcome, ReloadReport
from servd.wire.shm_counters import BOUNDS


class ReloadStatistics:
    """Reloads since the start: by outcome, by bucket of duration, and seconds in all."""

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = dict.fromkeys(get_args(Outcome), 0)
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.last_successful = True

    def add(self, report: ReloadReport) -> None:
        """Counts one reload."""
        self.outcomes[report.outcome] += 1
        self.buckets[bisect_left(BOUNDS, report.seconds)] += 1
        self.seconds += report.seconds
        self.last_successful = report.error is None
