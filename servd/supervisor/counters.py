"""What the workers of every service have counted since the daemon began. Counters never go back:
what the dead have counted stays in the sum.
"""

from __future__ import annotations

import os

from servd.wire import shm_counters
from servd.wire.shm_counters import CounterView, Totals


class CounterRegistry:
    """The blocks of the workers that live, and the sums of those that have ended."""

    def __init__(self) -> None:
        self.restarts: dict[tuple[str, str], int] = {}
        self._live: dict[str, set[CounterView]] = {}
        self._ended: dict[str, Totals] = {}

    def open(self, service: str) -> tuple[int, CounterView]:
        """A block for a new worker: the descriptor to hand over, and our side. Raises OSError."""
        descriptor = shm_counters.create(f"servd-{service}")
        try:
            reading = CounterView(descriptor)  # takes a descriptor of its own
        except OSError:
            os.close(descriptor)
            raise
        self._live.setdefault(service, set()).add(reading)
        return descriptor, reading

    def close(self, service: str, reading: CounterView) -> None:
        """Takes the counts of a worker that has ended over."""
        self._live[service].discard(reading)
        self._ended.setdefault(service, Totals()).add(reading.totals())
        reading.close()

    def restarted(self, service: str, reason: str) -> None:
        """A worker is replaced by another for `reason`."""
        self.restarts[service, reason] = self.restarts.get((service, reason), 0) + 1

    @property
    def services(self) -> list[str]:
        """Every service that has had a worker which counts."""
        return sorted({*self._live, *self._ended})

    def live(self, service: str) -> frozenset[CounterView]:
        """The blocks of the workers that live."""
        return frozenset(self._live.get(service, ()))

    def buckets(self, service: str) -> list[int]:
        """Requests by duration, of all workers of a service that are or ever were."""
        ended = self._ended.get(service)
        each = [reading.buckets for reading in self._live.get(service, ())]
        if ended is not None:
            each.append(ended.buckets)
        return [sum(column) for column in zip(*each, strict=True)] or Totals().buckets

    def totals(self, service: str) -> Totals:
        """The sum of all workers of a service that are or ever were."""
        found = Totals()
        found.add(self._ended.get(service, found))
        for reading in self._live.get(service, ()):
            found.add(reading.totals())
        return found

    def gauge(self, service: str, word: int) -> int:
        """The sum of a gauge over the workers that live."""
        return sum(reading.gauge(word) for reading in self._live.get(service, ()))
