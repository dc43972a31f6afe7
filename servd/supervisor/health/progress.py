"""What the answers of a worker tell about it, without asking it anything."""

from __future__ import annotations

from typing import NamedTuple

from servd.wire.shm_counters import IN_FLIGHT, CounterView


class WorkDone(NamedTuple):
    """The requests that a worker has, all that it has done since its start (answers, and parts of
    answers), and what of it was well: no 5xx.
    """

    in_flight: int
    done: int
    well: int


def work_of(counters: CounterView) -> WorkDone:
    """Returns what a worker has done so far. Costs microseconds."""
    answers, parts = counters.answers, counters.parts
    done = answers.total + parts
    return WorkDone(counters.gauge(IN_FLIGHT), done, done - answers.server_errors)


class WorkProgress:
    """Compares the looks at one worker. It is stuck when it has had requests, and has done nothing,
    for `patience` seconds.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._last: WorkDone | None = None
        self._since: float | None = None

    def look(self, work: WorkDone, now: float) -> bool:
        """Returns whether requests have ended well, or gone on, since the last look."""
        last, self._last = self._last, work
        stands = last is not None and last.done == work.done
        if not work.in_flight:
            self._since = None
        elif not stands or self._since is None:
            self._since = now
        return last is not None and work.well > last.well

    def goes_on(self, now: float) -> None:
        """It has shown otherwise that it works, or nobody could look for a while."""
        if self._since is not None:
            self._since = now

    def stuck_for(self, now: float) -> float:
        """Returns the seconds for which it has been stuck; 0 if it is not."""
        seconds = now - self._since if self._since is not None else 0.0
        return seconds if seconds >= self.patience else 0.0
