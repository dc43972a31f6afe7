"""Counters of all workers since the daemon started; those of ended workers stay in the sums."""

from __future__ import annotations

import os

from servd.wire import shm_counters
from servd.wire.shm_counters import Answers, CounterView, Totals


class CounterRegistry:
    """The counter blocks of living workers, and the sums of those that have ended."""

    def __init__(self) -> None:
        self.restarts: dict[tuple[str, str], int] = {}
        self._live: dict[str, set[CounterView]] = {}
        self._ended: dict[str, Totals] = {}

    def open(self, service: str) -> tuple[int, CounterView]:
        """Makes a block for a new worker: the worker's descriptor, and our view. Raises OSError."""
        descriptor = shm_counters.create(f"servd-{service}")
        try:
            reading = CounterView(descriptor)  # duplicates the descriptor
        except OSError:
            os.close(descriptor)
            raise
        self._live.setdefault(service, set()).add(reading)
        return descriptor, reading

    def close(self, service: str, reading: CounterView) -> None:
        """Adds the counts of an ended worker to the sums."""
        self._live[service].discard(reading)
        self._ended.setdefault(service, Totals()).add(reading.totals())
        reading.close()

    def restarted(self, service: str, reason: str) -> None:
        """Counts the replacement of a worker for `reason`."""
        self.restarts[service, reason] = self.restarts.get((service, reason), 0) + 1

    @property
    def services(self) -> list[str]:
        """Every service that has had a worker with counters."""
        return sorted({*self._live, *self._ended})

    def live(self, service: str) -> frozenset[CounterView]:
        """The blocks of the living workers."""
        return frozenset(self._live.get(service, ()))

    def answers(self, service: str) -> Answers:
        """Answered requests, of all workers that a service has or had."""
        each = [reading.answers for reading in self._live.get(service, ())]
        each.append(self._ended.get(service, Totals()).answers)
        client_errors, server_errors, buckets = zip(*each, strict=True)
        by_duration = [sum(column) for column in zip(*buckets, strict=True)]
        return Answers(sum(client_errors), sum(server_errors), by_duration)

    def totals(self, service: str) -> Totals:
        """The sums of all workers that a service has or had."""
        found = Totals()
        found.add(self._ended.get(service, found))
        for reading in self._live.get(service, ()):
            found.add(reading.totals())
        return found

    def gauge(self, service: str, word: int) -> int:
        """The sum of a gauge over the living workers."""
        return sum(reading.gauge(word) for reading in self._live.get(service, ()))
