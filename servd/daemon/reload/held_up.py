"""Reloads that wait: no generation that answers requests is cut to make room for another one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

import structlog

from servd.core.events import Event
from servd.daemon.reload.queue import ReloadQueue
from servd.daemon.reload.request import ReloadReport, ReloadRequest
from servd.plan.change import Change
from servd.supervisor.service import ManagedService
from servd.supervisor.supervisor import Supervisor

_LOOK_SECONDS = 0.1
_NEXT = "waiting until a generation has drained (--now cuts it short)"

log = structlog.get_logger()


class HeldUpError(Exception):
    """A reload has to wait for drains of these services. It has changed nothing yet."""

    def __init__(self, services: Collection[ManagedService]) -> None:
        self.services = services
        super().__init__("waits for a drain")


class HeldUpReloads:
    """Parks what is held up, and has it tried again once that may succeed."""

    def __init__(self, queue: ReloadQueue, supervisor: Supervisor) -> None:
        self._queue = queue
        self._supervisor = supervisor
        self._services: set[ManagedService] = set()
        self._said: set[tuple[str, int]] = set()
        self._look: asyncio.Task[None] | None = None
        queue.resume = self.resume

    def check(self, request: ReloadRequest, changes: Iterable[Change]) -> None:
        """Raises `HeldUpError` if a change would start a generation too many."""
        known = self._supervisor.services
        replaced = [known[c.service] for c in changes if c.replaces and c.service in known]
        found = [service for service in replaced if service.held_up_by is not None]
        if found and not request.now:
            raise HeldUpError(found)

    def park(
        self, request: ReloadRequest, future: asyncio.Future[ReloadReport], error: HeldUpError
    ) -> None:
        """Keeps a request until one of its services has room."""
        self._queue.park(request, future)
        for service in error.services:
            self._services.add(service)
            service.is_held_up = True
            self._tell(service)
        if self._look is None:
            self._look = asyncio.get_running_loop().create_task(self._until_room())

    def _tell(self, service: ManagedService) -> None:
        """Logs what is waited for, once for each generation."""
        generation = service.held_up_by
        if generation is None or (service.plan.name, generation.number) in self._said:
            return
        self._said.add((service.plan.name, generation.number))
        service.log.info(Event.RELOAD_WAITS, reason=generation.shown_drain, next_action=_NEXT)

    async def _until_room(self) -> None:
        while all(service.held_up_by is not None for service in self._services):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)  # workers report what they drain at such a pace
        self._look = None
        self.resume()

    def resume(self) -> None:
        """Has everything tried again."""
        self.stop()
        for service in self._services:
            service.is_held_up = False
        self._services.clear()
        self._queue.unpark()

    def stop(self) -> None:
        """Ends the wait."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
