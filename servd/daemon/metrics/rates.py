"""Requests per second and latencies of the last seconds, from the workers' counters."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence

from servd.core.quick_dataclass import dataclass
from servd.daemon.periodic import Periodic
from servd.supervisor.counters import CounterRegistry
from servd.wire.shm_counters import BOUNDS, Answers, CounterView

_WINDOW_SECONDS = 10.0
"""Time that the figures cover."""

_READING_SECONDS = 2.0
"""Interval between two readings."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per second, median and 99th percentile in ms; None without requests or counters.
    `client_errors` and `server_errors` are those answered with 4xx and 5xx, per second;
    `error_rate` is the share of 5xx, from 0 to 1. `trouble` says so if most were answered with 5xx.
    """

    per_second: float | None
    p50_ms: float | None = None
    p99_ms: float | None = None
    client_errors: float | None = None
    server_errors: float | None = None
    error_rate: float | None = None
    trouble: str = ""


NOT_COUNTED = Rate(None)


class _Track:
    """Counts of one worker or service, one reading per interval."""

    def __init__(self) -> None:
        self._read: deque[tuple[float, Answers]] = deque(
            maxlen=int(_WINDOW_SECONDS / _READING_SECONDS)
        )

    def add(self, now: float, answers: Answers) -> None:
        self._read.append((now, answers))

    def rate(self, now: float, answers: Answers) -> Rate:
        if not self._read:
            return Rate(0.0, client_errors=0.0, server_errors=0.0)
        then, before = self._read[0]
        seconds = max(now - then, 0.1)
        counts = [b - a for a, b in zip(before.buckets, answers.buckets, strict=True)]
        client_errors = answers.client_errors - before.client_errors
        server_errors = answers.server_errors - before.server_errors
        answered = sum(counts)
        return Rate(
            round(answered / seconds, 1),
            percentile(counts, 0.5),
            percentile(counts, 0.99),
            round(client_errors / seconds, 1),
            round(server_errors / seconds, 1),
            round(server_errors / answered, 4) if answered else None,
            _trouble(server_errors, answered),
        )


def _trouble(server_errors: int, answered: int) -> str:
    """Returns what to say of a service that answers most requests with 5xx; "" of others."""
    if 2 * server_errors <= answered:
        return ""
    return f"{server_errors} of {answered} recent requests failed with 5xx"


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Milliseconds that `share` of the requests took at most, interpolated like Prometheus's
    histogram_quantile; None without requests.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    below, seen = 0.0, 0
    for bound, count in zip(BOUNDS, counts, strict=False):
        if seen + count >= rank:
            return round(1000 * (below + (bound - below) * (rank - seen) / count), 2)
        below, seen = bound, seen + count
    return 1000 * BOUNDS[-1]


class RequestRates:
    """Follows the counters of all workers."""

    def __init__(self, counts: CounterRegistry) -> None:
        self._counts = counts
        self._services: dict[str, _Track] = {}
        self._workers: dict[CounterView, _Track] = {}
        self.readings = Periodic(_READING_SECONDS, self.read)

    def read(self) -> None:
        """Takes a reading of everything and forgets workers that are gone."""
        now = time.monotonic()
        known, self._workers = self._workers, {}
        for name in self._counts.services:
            self._services.setdefault(name, _Track()).add(now, self._counts.answers(name))
            for reading in self._counts.live(name):
                track = self._workers[reading] = known.get(reading) or _Track()
                track.add(now, reading.answers)

    def service(self, name: str) -> Rate:
        """Returns the rate of all workers of a service."""
        track = self._services.get(name, _Track())
        return track.rate(time.monotonic(), self._counts.answers(name))

    def all(self) -> Iterator[tuple[str, Rate]]:
        """Yields every service that has had a worker with counters, and its rate."""
        return ((name, self.service(name)) for name in self._counts.services)

    def worker(self, reading: CounterView) -> Rate:
        """Returns the rate of one live worker."""
        track = self._workers.get(reading, _Track())
        return track.rate(time.monotonic(), reading.answers)
