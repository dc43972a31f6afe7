"""Requests for reloads, in the order in which they are served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from servd.daemon.reload.request import ReloadReport, ReloadRequest


class ReloadQueue:
    """Requests that wait are joined into one, with one report; manual actions take their turn. Once
    `stopping` is set, all requests are answered at once with the reason in `refusal`. One that is
    held up is parked meanwhile: others overtake it, and those that join it `resume` it.
    """

    def __init__(self, stopping: asyncio.Event, now: Callable[[], str]) -> None:
        self.refusal = "servd is stopping"
        self._stopping = stopping
        self._now = now
        self._waiting: deque[tuple[ReloadRequest, asyncio.Future[ReloadReport]]] = deque()
        self._parked: deque[tuple[ReloadRequest, asyncio.Future[ReloadReport]]] = deque()
        self._arrived = asyncio.Event()
        self.resume = self.unpark

    def ask(self, request: ReloadRequest) -> asyncio.Future[ReloadReport]:
        """Returns the future report, or `RefusedError`, or `OutdatedError` for another revision."""
        loop = asyncio.get_running_loop()
        if self._stopping.is_set():
            answer: asyncio.Future[ReloadReport] = loop.create_future()
            answer.set_result(self.refused(request))
            return answer
        for index, (parked, future) in enumerate(self._parked):
            if parked.joins(request):
                self._parked[index] = (parked.joined(request), future)
                self.resume()
                return future
        if self._waiting and self._waiting[-1][0].joins(request):
            waiting, future = self._waiting.pop()
            self._waiting.append((waiting.joined(request), future))
        else:
            self._waiting.append((request, loop.create_future()))
        self._arrived.set()
        return self._waiting[-1][1]

    async def take(self) -> tuple[ReloadRequest, asyncio.Future[ReloadReport]]:
        """Waits for the next request; returns it with the future of its report."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    def park(self, request: ReloadRequest, future: asyncio.Future[ReloadReport]) -> None:
        """Keeps a request that is held up until `unpark`."""
        self._parked.append((request, future))

    def unpark(self) -> None:
        """Has every parked request tried again, before those that wait."""
        self._waiting.extendleft(reversed(self._parked))
        self._parked.clear()
        if self._waiting:
            self._arrived.set()

    @property
    def is_empty(self) -> bool:
        """Whether no request waits, nor is parked."""
        return not (self._waiting or self._parked)

    @property
    def has_next(self) -> bool:
        """Whether a request waits for its turn; those that are parked do not."""
        return bool(self._waiting)

    def refused(self, request: ReloadRequest) -> ReloadReport:
        """Returns the report of a request that comes too late."""
        return ReloadReport("rolled_back", self._now(), request.why, error=self.refusal)

    def close(self) -> None:
        """Answers all waiting requests."""
        for request, future in (*self._parked, *self._waiting):
            if not future.done():
                future.set_result(self.refused(request))
        self._waiting.clear()
        self._parked.clear()
