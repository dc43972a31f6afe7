"""Requests per second and latencies of the last seconds, from the workers' counters."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from servd.daemon.periodic import Periodic
from servd.supervisor.counters import CounterRegistry
from servd.wire.shm_counters import BOUNDS, CounterView

_WINDOW_SECONDS = 10.0
"""Time that the figures cover."""

_READING_SECONDS = 2.0
"""Interval between two readings."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per second, median and 99th percentile in ms; None without requests or counters."""

    per_second: float | None
    p50_ms: float | None
    p99_ms: float | None


NOT_COUNTED = Rate(None, None, None)


class _Track:
    """Bucket counts of one worker or service, one reading per interval."""

    def __init__(self) -> None:
        self._read: deque[tuple[float, Sequence[int]]] = deque(
            maxlen=int(_WINDOW_SECONDS / _READING_SECONDS)
        )

    def add(self, now: float, buckets: Sequence[int]) -> None:
        self._read.append((now, buckets))

    def rate(self, now: float, buckets: Sequence[int]) -> Rate:
        if not self._read:
            return Rate(0.0, None, None)
        then, before = self._read[0]
        counts = [b - a for a, b in zip(before, buckets, strict=True)]
        per_second = sum(counts) / max(now - then, 0.1)
        p50, p99 = (percentile(counts, share) for share in (0.5, 0.99))
        return Rate(round(per_second, 1), p50, p99)


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
            self._services.setdefault(name, _Track()).add(now, self._counts.buckets(name))
            for reading in self._counts.live(name):
                track = self._workers[reading] = known.get(reading) or _Track()
                track.add(now, reading.buckets)

    def service(self, name: str) -> Rate:
        """Returns the rate of all workers of a service."""
        track = self._services.get(name, _Track())
        return track.rate(time.monotonic(), self._counts.buckets(name))

    def worker(self, reading: CounterView) -> Rate:
        """Returns the rate of one live worker."""
        track = self._workers.get(reading, _Track())
        return track.rate(time.monotonic(), reading.buckets)
