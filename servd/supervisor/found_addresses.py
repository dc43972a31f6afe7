"""Finds the addresses that programs bind without saying so."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from weakref import WeakKeyDictionary

from servd.core.events import Event
from servd.core.processes import descendants_of
from servd.host.listening import chosen_ports, listening
from servd.plan.found import found_addresses, one_worker_reason
from servd.plan.model import Plan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.service import ManagedService
from servd.supervisor.sockets.pool import SocketPool

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 60.0
"""Age of a worker at the first look at it, and the longest time between two: each is twice as long
as the one before.
"""


class AddressFinder:
    """Looks at the workers of commands: soon after their start, then more and more seldom, and
    whenever a change is planned.
    """

    def __init__(self, services: Mapping[str, ManagedService], pool: SocketPool) -> None:
        self._services = services
        self._pool = pool
        self._last: dict[str, tuple[set[int], set[str]]] = {}
        self._due: WeakKeyDictionary[WorkerProcess, float] = WeakKeyDictionary()

    async def look_at_due(self) -> None:
        """Looks at the workers whose time has come."""
        due = {
            process
            for service in self._programs
            for process in _processes(service)
            if process.lived >= self._due.setdefault(process, _FIRST_SECONDS)
        }
        for process in due:
            self._due[process] = process.lived + min(process.lived, _LONGEST_SECONDS)
        if due:
            await self._look([s for s in self._programs if due.intersection(_processes(s))])

    async def look(self) -> None:
        """Looks at all."""
        await self._look(self._programs)

    def with_found(self, plan: Plan) -> Plan:
        """Returns a plan with what was found of its services."""
        found = {name: service.plan.found for name, service in self._services.items()}
        services = (replace(s, found=found.get(s.name, s.found)) for s in plan.services)
        return replace(plan, services=tuple(services))

    @property
    def _programs(self) -> list[ManagedService]:
        return [
            service
            for service in self._services.values()
            if service.plan.command and not (service.plan.is_task or service.plan.binds_itself)
        ]

    async def _look(self, services: Collection[ManagedService]) -> None:
        if not services:
            return
        ours = [os.fstat(item.sock.fileno()).st_ino for item in self._pool.bound.values()]
        workers = [(service, [p.pid for p in _processes(service)]) for service in services]
        looked = await asyncio.to_thread(
            lambda: [
                [listening(list(descendants_of([pid])), ours) for pid in pids]
                for _, pids in workers
            ]
        )
        for (service, pids), found in zip(workers, looked, strict=True):
            self._learn(service, set(pids), found)

    def _learn(self, service: ManagedService, pids: set[int], by_worker: list[set[str]]) -> None:
        """Keeps what was found, until something else is. What two workers have can be shared (with
        SO_REUSEPORT), and is in nobody's way.
        """
        count = Counter(address for addresses in by_worker for address in addresses)
        shared = {address for address, workers in count.items() if workers > 1}
        plan = service.plan
        temporary = os.path.realpath(tempfile.gettempdir())
        again = {i.address for i in plan.found if i.fixed} | self._had_before(
            plan.name, pids, count
        )
        found = found_addresses(count.keys() - shared, plan, chosen_ports(), temporary, again)
        if not (found or shared) or found == plan.found:
            return
        service.learn(found)
        fixed = [item.address for item in service.plan.held if item.fixed]
        alone = fixed and plan.workers > 1
        service.log.warning(
            Event.BINDS_ITSELF,
            addresses=[item.address for item in found],
            **({"error": one_worker_reason(fixed)} if alone else {}),
        )

    def _had_before(self, name: str, pids: set[int], now: Collection[str]) -> set[str]:
        """Returns the addresses that an earlier process of the service had too."""
        before, had = self._last.get(name, (set(), set()))
        if now:
            self._last[name] = pids, set(now)
        return had if before.isdisjoint(pids) else set()


def _processes(service: ManagedService) -> list[WorkerProcess]:
    current = service.current
    return [] if current is None else [p for p in current.workers.processes if p.is_alive()]
