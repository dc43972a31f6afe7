"""Limit on the workers of the whole daemon that start at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Starting(Protocol):
    """A worker that is starting."""

    def __hash__(self) -> int: ...


class StartLimiter:
    """Bounds how many workers start at the same time (`daemon.start_concurrency`).

    Calls `wake` when another one may start.
    """

    def __init__(self, limit: int, wake: Callable[[], None]) -> None:
        self._limit = limit
        self._wake = wake
        self._inside: set[Starting] = set()

    @property
    def is_open(self) -> bool:
        """Whether another worker may start."""
        return len(self._inside) < self._limit

    def enter(self, worker: Starting) -> None:
        """Counts `worker` as starting."""
        self._inside.add(worker)

    def leave(self, worker: Starting) -> None:
        """Counts `worker` no more: it is ready, or has ended."""
        if worker in self._inside:
            self._inside.discard(worker)
            self._wake()

    def change(self, limit: int) -> None:
        """Sets a new limit."""
        self._limit = limit
        self._wake()
