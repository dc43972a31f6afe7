"""How many workers of the whole daemon may be starting at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Starting(Protocol):
    """A worker that is starting."""

    def __hash__(self) -> int: ...


class StartLimiter:
    """Bounds how many workers may be starting at once (`daemon.start_concurrency`).

    `wake` is called when one more may start.
    """

    def __init__(self, limit: int, wake: Callable[[], None]) -> None:
        self._limit = limit
        self._wake = wake
        self._inside: set[Starting] = set()

    @property
    def is_open(self) -> bool:
        """Whether one more may start."""
        return len(self._inside) < self._limit

    def enter(self, worker: Starting) -> None:
        """`worker` is starting."""
        self._inside.add(worker)

    def leave(self, worker: Starting) -> None:
        """`worker` is ready, or has ended."""
        if worker in self._inside:
            self._inside.discard(worker)
            self._wake()

    def change(self, limit: int) -> None:
        """From now on `limit` may be starting at once."""
        self._limit = limit
        self._wake()
