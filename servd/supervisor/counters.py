"""Counters of all workers since the daemon started; those of ended workers stay in the sums."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from servd.wire import sealed_memory, shm_counters
from servd.wire.accept_board import Board
from servd.wire.shm_counters import Answers, CounterView, Totals


class WorkerMemory(NamedTuple):
    """What a worker shares: its counters (its descriptor, and our view of them), and its seat on
    the board of its service, whose descriptor it gets a copy of.
    """

    descriptor: int
    reading: CounterView
    board: int
    seat: int


class CounterRegistry:
    """The counter blocks of living workers, and the sums of those that have ended; and the boards
    of their services.
    """

    def __init__(self) -> None:
        self.restarts: dict[tuple[str, str], int] = {}
        self._live: dict[str, dict[CounterView, int]] = {}
        self._boards: dict[str, Board] = {}
        self._ended: dict[str, Totals] = {}

    def open(self, service: str) -> WorkerMemory:
        """Makes the memory of a new worker. Raises OSError."""
        with contextlib.ExitStack() as undo:
            board = self._boards.get(service)
            if board is None:
                board = Board(f"servd-{service}-board")
                undo.callback(board.close)
            descriptor = sealed_memory.create(f"servd-{service}", shm_counters.SIZE)
            undo.callback(os.close, descriptor)
            reading = CounterView(descriptor)  # duplicates the descriptor
            undo.pop_all()
        self._boards[service] = board
        self._live.setdefault(service, {})[reading] = seat = board.take()
        return WorkerMemory(descriptor, reading, board.descriptor, seat)

    def close(self, service: str, reading: CounterView) -> None:
        """Adds the counts of an ended worker to the sums, and frees its seat."""
        self._boards[service].give_back(self._live[service].pop(reading))
        if not self._live[service]:
            self._boards.pop(service).close()
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
