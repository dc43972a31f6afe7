"""Finds the addresses that programs bind without saying so."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import os
import stat
import tempfile
from collections.abc import Collection, Container, Mapping
from dataclasses import replace

from servd.core.events import Event
from servd.core.processes import descendants_of
from servd.core.quick_dataclass import dataclass
from servd.host.listening import chosen_ports, is_shareable, listening
from servd.plan.found import found_addresses, one_worker_reason
from servd.plan.host import Account
from servd.plan.model import FoundAddress, Plan, ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.generation import Generation
from servd.supervisor.service import ManagedService
from servd.supervisor.sockets.pool import SocketPool
from servd.supervisor.worker_registry import WorkerRegistry

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 300.0
"""Age of a worker at the first look at its service, and the longest time between two: each is twice
as long as the one before.
"""

_FORGET_SECONDS = 30.0
"""What was found is forgotten when workers of that age have nothing of it."""

_MOST_FILES, _TEXT_BYTES = 32, 2**20


class AddressFinder:
    """Looks at the workers of commands: soon after their start, then more and more seldom, and
    whenever a change is planned.
    """

    def __init__(
        self,
        services: Mapping[str, ManagedService],
        pool: SocketPool,
        registry: WorkerRegistry,
    ) -> None:
        self._registry = registry
        self._services = services
        self._pool = pool
        self._temporary = os.path.realpath(tempfile.gettempdir())
        self._chosen_ports = chosen_ports()
        self._shareable: dict[str, bool] = {}
        self._last: dict[str, tuple[set[int], set[str]]] = {}
        self._due: dict[str, float] = {}
        """When each service is looked at next."""
        self._schedule: list[tuple[float, str]] = []
        """A heap of these times, and of some that count no more."""

    async def look_at_due(self) -> None:
        """Looks at the services whose time has come. Those whose time has not cost nothing."""
        now = asyncio.get_running_loop().time()
        for name in self._registry.take_started():
            self._look_at(now + _FIRST_SECONDS, name)
        due: list[ManagedService] = []
        while self._schedule and self._schedule[0][0] <= now:
            at, name = heapq.heappop(self._schedule)
            if self._due.get(name) != at:
                continue
            del self._due[name]
            service = self._services.get(name)
            if service is not None and _is_program(service) and service.processes:
                youngest = min(process.lived for process in service.processes)
                pause = min(max(youngest, _FIRST_SECONDS), _LONGEST_SECONDS)
                self._look_at(now + pause, name)
                due.append(service)
        await self._look(due)

    def _look_at(self, at: float, name: str) -> None:
        if at < self._due.get(name, math.inf):
            self._due[name] = at
            heapq.heappush(self._schedule, (at, name))

    async def look(self, names: Container[str] | None = None) -> bool:
        """Looks at the services of these names, or at all. Returns whether anything is new."""
        services = (s for name, s in self._services.items() if names is None or name in names)
        return await self._look([service for service in services if _is_program(service)])

    def with_found(self, plan: Plan) -> Plan:
        """Returns a plan with what was found of its services."""
        found = {name: service.plan.found for name, service in self._services.items()}
        services = (replace(s, found=found.get(s.name, s.found)) for s in plan.services)
        return replace(plan, services=tuple(services))

    async def _look(self, services: Collection[ManagedService]) -> bool:
        """Returns whether anything is new. Never raises: what is not found changes nothing."""
        looks = [_Look(s, s.current, _processes(s)) for s in services if s.current is not None]
        if not looks:
            return False
        ours = [os.fstat(item.sock.fileno()).st_ino for item in self._pool.bound.values()]
        try:
            found = await asyncio.to_thread(lambda: [look.see(ours) for look in looks])
        except (OSError, RuntimeError):  # no descriptor, no thread: the next look comes
            return False
        learned = False
        for look, (by_worker, texts) in zip(looks, found, strict=True):
            if look.service.current is look.generation:  # else it was replaced meanwhile
                learned |= self._learn(look, by_worker, texts)
        return learned

    def _learn(self, look: _Look, by_worker: list[set[str]], texts: list[str]) -> bool:
        """Keeps what was found until something else is, or nothing for a while. Returns whether it
        is new.
        """
        plan = look.service.plan
        everything: set[str] = set().union(*by_worker)
        again = self._had_before(plan.name, look.pids, everything)
        again |= {item.address for item in plan.held}
        found = found_addresses(everything, plan, self._chosen_ports, self._temporary, again, texts)
        found = self._in_the_way(plan, found, by_worker)
        if found == plan.found or (not everything and look.youngest < _FORGET_SECONDS):
            return False
        held = plan.held
        look.service.learn(found)
        plan = look.service.plan
        if plan.held and plan.held != held:
            fixed = [item.address for item in plan.held]
            alone = {"error": one_worker_reason(fixed)} if plan.workers > 1 else {}
            look.service.log.warning(Event.BINDS_ITSELF, addresses=fixed, **alone)
        return True

    def _in_the_way(
        self, plan: ServicePlan, found: tuple[FoundAddress, ...], by_worker: list[set[str]]
    ) -> tuple[FoundAddress, ...]:
        """Leaves out what another worker can have too (SO_REUSEPORT), and what it does without."""
        account = plan.identity.account
        alone = [
            item
            for item in found
            if sum(item.address in addresses for addresses in by_worker) == 1
            and not (item.fixed and self._is_shareable(item.address, account))
        ]
        fixed = {item.address for item in alone if item.fixed}
        each = {len(addresses & fixed) for addresses in by_worker}
        if len(by_worker) > 1 and len(each) > 1:  # some worker is ready without
            alone = [item for item in alone if not item.fixed]
        return tuple(alone)

    def _is_shareable(self, address: str, account: Account | None) -> bool:
        if address not in self._shareable:
            self._shareable[address] = is_shareable(address, account)
        return self._shareable[address]

    def _had_before(self, name: str, pids: set[int], now: Collection[str]) -> set[str]:
        """Returns the addresses that an earlier process of the service had too."""
        before, had = self._last.get(name, (set(), set()))
        if now:
            self._last[name] = pids, set(now)
        return had if before.isdisjoint(pids) else set()


@dataclass(frozen=True, slots=True)
class _Look:
    """A look at the ready workers of a generation."""

    service: ManagedService
    generation: Generation
    processes: list[WorkerProcess]

    @property
    def pids(self) -> set[int]:
        return {process.pid for process in self.processes}

    @property
    def youngest(self) -> float:
        return min((process.lived for process in self.processes), default=0.0)

    def see(self, but: Collection[int]) -> tuple[list[set[str]], list[str]]:
        """Returns what each worker listens on, and, if any does, the files that the command names.
        It is called in a thread.
        """
        pids = [process.pid for process in self.processes]
        by_worker = [listening(list(descendants_of([pid])), but) for pid in pids]
        return by_worker, _texts_of(self.generation.plan) if any(by_worker) else []


def _texts_of(plan: ServicePlan) -> list[str]:
    """Returns the files that the command names: a script, a configuration."""
    found: list[str] = []
    for argument in plan.command[:_MOST_FILES]:
        path = os.path.join(plan.directory, argument)
        with contextlib.suppress(OSError, ValueError):
            if stat.S_ISREG(os.stat(path).st_mode) and os.path.getsize(path) < _TEXT_BYTES:
                with open(path, encoding="utf-8", errors="replace") as file:
                    found.append(file.read())
    return found


def _is_program(service: ManagedService) -> bool:
    """Whether the service may bind what its configuration does not say."""
    plan = service.plan
    return bool(plan.command) and not (plan.is_task or plan.binds_itself)


def _processes(service: ManagedService) -> list[WorkerProcess]:
    current = service.current
    if current is None:
        return []
    return [p for p in current.workers.processes if p.is_alive() and p.was_ready]
