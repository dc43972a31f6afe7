"""How the services of one daemon become those of the next one, which takes its place."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from servd.core import bind
from servd.core.address import Address
from servd.plan.change import Change
from servd.plan.diff import client_auth, overlap_is_unsafe
from servd.plan.model import ServicePlan
from servd.supervisor.apply.step import Step
from servd.supervisor.apply.steps import Interrupt, Replace, Start, Task
from servd.supervisor.generation import Generation
from servd.supervisor.service import ManagedService
from servd.supervisor.sockets.pool import tcp_key, unix_key


@dataclass(frozen=True, slots=True)
class InheritedService:
    """A service as the daemon before has it: whether a client would be answered, how clients are
    asked for certificates ("": without TLS), the task that has been completed, the sockets that it
    shows to the world by their keys, and the addresses that its program binds itself.
    """

    serves: bool
    client_auth: str = ""
    completed: str = ""
    sockets: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()


class PreviousDaemon(Protocol):
    """The daemon before."""

    async def agree(self, at_once: Collection[str]) -> None:
        """All is ready here: from now on it is we who run. It stops accepting for the services
        `at_once` before it does anything else. Raises `ServdError` where it goes on after all.
        """

    async def released(self, name: str) -> None:
        """Returns once the workers accept no more that a service has there."""

    async def ended(self, name: str) -> None:
        """Returns once the workers have ended that a service has there."""


@dataclass(frozen=True, slots=True)
class InheritedState:
    """What the daemon before leaves: its services by their names, and itself."""

    services: Mapping[str, InheritedService]
    previous: PreviousDaemon


def inherited_service(service: ManagedService) -> InheritedService:
    """A service, as the next daemon needs to know it."""
    current = service.current
    completed = service.plan.is_task and current is not None and current.completed
    return InheritedService(
        serves=service.serves or completed,
        client_auth=client_auth(service.plan),
        completed=task_mark(service.plan) if completed else "",
        sockets=tuple(current.public_sockets) if current is not None else (),
        binds=_binds(service.plan),
    )


def _binds(plan: ServicePlan) -> tuple[str, ...]:
    """The addresses that its program binds itself."""
    return tuple(str(address) for address in plan.addresses) if plan.binds_itself else ()


def task_mark(plan: ServicePlan) -> str:
    """Another for every definition of a task. Keys with their default values are left out: another
    version of servd may have more of them.
    """
    return hashlib.sha256(
        plan.definition.model_dump_json(exclude_defaults=True).encode()
    ).hexdigest()


class Inherit(Replace):
    """New workers on the sockets of the old: ready while those serve, accepting beside them, but
    where the two must not accept from one socket. `owners` are services of the daemon before that
    must have left it first.
    """

    def __init__(self, change: Change, service: ManagedService, inherited: InheritedState) -> None:
        super().__init__(change, service)
        self.inherited = inherited
        self.owners: set[str] = set()

    def _must_hand_over(self, new: Generation) -> bool:
        """Another service's workers must never answer in its place; nor its own, where they ask
        less of clients.
        """
        wanted = set(new.public_sockets)
        for name, old in self.inherited.services.items():
            same = name == self.change.service
            if same and not overlap_is_unsafe(old.client_auth, self.after):
                continue
            if wanted & set(old.sockets):
                self.owners.add(name)
        return bool(self.owners)

    @property
    def _serves_nobody(self) -> bool:
        """Nothing that is here before all is ready may keep the daemon before from going on."""
        return False

    async def retire_old(self) -> None:
        """The sockets are ours: they get what this plan gives them."""
        assert self.generation is not None
        with contextlib.suppress(OSError):
            self.generation.apply_options()
        await super().retire_old()

    async def accept_late(self) -> None:
        """Accepts once the others do not any more."""
        for name in self.owners:
            await self.inherited.previous.released(name)
        await super().accept_late()


class InheritTask(Step):
    """A task that need not run again: it was completed before."""

    async def retire_old(self) -> None:
        """It is completed here, too."""
        generation = self.service.new_generation(self.after)
        generation.record.completed = True
        self.service.promote(generation)
        self.service.complete()


class AwaitPrevious(Start):
    """What cannot run here beside the old: it starts, with its addresses, once `owners` of the
    daemon before have ended.
    """

    def __init__(
        self,
        change: Change,
        service: ManagedService,
        previous: PreviousDaemon,
        owners: Collection[str],
    ) -> None:
        super().__init__(change, service)
        self.previous = previous
        self.owners = owners

    async def prepare(self) -> None:
        """Nothing can be had yet."""

    async def retire_old(self) -> None:
        """Nothing is here that could take its place."""

    async def until_possible(self) -> None:
        """Returns once the old have ended."""
        for name in self.owners:
            await self.previous.ended(name)


def inheriting_step(
    change: Change, service: ManagedService, inherited: InheritedState, deferred: Collection[str]
) -> Step:
    """The step that takes a service over, where those in `deferred` are not expected to be ready.

    What did not serve before fails nothing when it does not now; nor does what is new and needs
    such a one.
    """
    plan, old = change.plan, inherited.services.get(change.service)
    needs_deferred = any(d.service in deferred for d in plan.depends_on)
    if plan.is_task:
        if old is not None and plan.definition.run == "once" and old.completed == task_mark(plan):
            return InheritTask(change, service)
        if old is not None and not old.completed:  # a run of it may be under way
            return AwaitPrevious(change, service, inherited.previous, {change.service})
        return Start(change, service) if needs_deferred else Task(change, service)
    if plan.workers and (owners := _in_the_way(change, inherited)):
        return AwaitPrevious(change, service, inherited.previous, owners)
    serves = old is not None and old.serves
    if not serves and plan.workers and (old is not None or needs_deferred):
        return Start(change, service)
    if plan.stands_alone and plan.workers:
        return Interrupt(change, service)
    return Inherit(change, service, inherited)


def _in_the_way(change: Change, inherited: InheritedState) -> set[str]:
    """Services of the daemon before that must have ended first: programs that bind an address
    themselves, and whatever there has an address that such a program wants now.
    """
    plan = change.plan
    found = {change.service} & inherited.services.keys() if plan.stands_alone else set()
    addresses = {str(address) for address in plan.addresses}
    keys = (
        {key for address in plan.addresses for key in _keys(address)} if plan.binds_itself else ()
    )
    for name, old in inherited.services.items():
        if addresses & set(old.binds) or set(keys) & set(old.sockets):
            found.add(name)
    return found


def _keys(address: Address) -> list[str]:
    """What the pool knows the sockets of an address by."""
    if address.kind != "tcp":
        return [unix_key(address.path)]
    try:
        return [tcp_key(host, address.port) for _, host in bind.hosts(address)]
    except OSError:
        return []  # the program will say so
