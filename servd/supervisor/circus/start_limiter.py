"""Limit on the workers of the whole daemon that start at the same time."""

from __future__ import annotations

from collections.abc import Callable, Hashable


class StartLimiter:
    """Bounds the workers that start together (`daemon.start_concurrency`); frees call `wake`."""

    def __init__(self, limit: int, wake: Callable[[], None]) -> None:
        self._limit = limit
        self._wake = wake
        self._inside: set[Hashable] = set()

    @property
    def is_open(self) -> bool:
        """Whether another worker may start."""
        return len(self._inside) < self._limit

    def enter(self, worker: Hashable) -> None:
        """Counts `worker` as starting."""
        self._inside.add(worker)

    def leave(self, worker: Hashable) -> None:
        """Counts `worker` no more: it is ready, or has ended."""
        if worker in self._inside:
            self._inside.discard(worker)
            self._wake()

    def change(self, limit: int) -> None:
        """Sets a new limit."""
        self._limit = limit
        self._wake()
