"""Requests for reloads, in the order in which they are served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from servd.daemon.reload.request import ReloadReport, ReloadRequest


class ReloadQueue:
    """Requests that wait are joined into one, with one report; manual actions take their turn. Once
    `stopping` is set, all requests are answered at once with the reason in `refusal`.
    """

    def __init__(self, stopping: asyncio.Event, now: Callable[[], str]) -> None:
        self.refusal = "servd is stopping"
        self._stopping = stopping
        self._now = now
        self._waiting: deque[tuple[ReloadRequest, asyncio.Future[ReloadReport]]] = deque()
        self._arrived = asyncio.Event()

    def ask(self, request: ReloadRequest) -> asyncio.Future[ReloadReport]:
        """Returns the future report, or `RefusedError`, or `OutdatedError` for another revision."""
        loop = asyncio.get_running_loop()
        if self._stopping.is_set():
            answer: asyncio.Future[ReloadReport] = loop.create_future()
            answer.set_result(self.refused(request))
            return answer
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

    @property
    def is_empty(self) -> bool:
        """Whether no request waits."""
        return not self._waiting

    def refused(self, request: ReloadRequest) -> ReloadReport:
        """Returns the report of a request that comes too late."""
        return ReloadReport("rolled_back", self._now(), request.why, error=self.refusal)

    def close(self) -> None:
        """Answers all waiting requests."""
        for request, future in self._waiting:
            if not future.done():
                future.set_result(self.refused(request))
        self._waiting.clear()
