"""Taking services over from the previous daemon."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Mapping
from typing import Protocol

from servd.core import bind
from servd.core.address import Address
from servd.core.quick_dataclass import dataclass
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
    """A service as the previous daemon has it.

    `serves`: a client would be answered. `client_auth`: how clients are asked for certificates ("":
    without TLS). `completed`: the mark of a completed task. `sockets`: the keys of its public
    sockets. `binds`: the addresses that its program binds itself; `holds`: those that it was found
    to bind.
    """

    serves: bool
    client_auth: str = ""
    completed: str = ""
    sockets: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()


class PreviousDaemon(Protocol):
    """The previous daemon.

    `agree` makes this daemon the one that runs the services; the previous one first stops accepting
    for those `at_once`. Raises `ServdError` if it continues after all. `released` returns once its
    workers of a service accept no more, `ended` once they have ended.
    """

    async def agree(self, at_once: Collection[str]) -> None: ...
    async def released(self, name: str) -> None: ...
    async def ended(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class InheritedState:
    """What the previous daemon leaves: its services by name, and itself."""

    services: Mapping[str, InheritedService]
    previous: PreviousDaemon


def inherited_service(service: ManagedService) -> InheritedService:
    """Describes a service for the new daemon."""
    plan, current = service.plan, service.current
    completed = plan.is_task and current is not None and current.completed
    return InheritedService(
        serves=service.serves or completed,
        client_auth=client_auth(plan),
        completed=task_mark(plan) if completed else "",
        sockets=tuple(current.public_sockets) if current is not None else (),
        binds=tuple(str(address) for address in plan.addresses) if plan.binds_itself else (),
        holds=tuple(item.address for item in plan.held),
    )


def task_mark(plan: ServicePlan) -> str:
    """A digest of a task's definition. Keys with their default values are left out: another version
    of servd can have more of them.
    """
    definition = plan.definition.model_dump_json(exclude_defaults=True)
    return hashlib.sha256(definition.encode()).hexdigest()


class Inherit(Replace):
    """New workers on the sockets of the old: ready while those serve, accepting next to them unless
    the two must not share a socket. `owners`: services of the previous daemon that must go first.
    """

    def __init__(self, change: Change, service: ManagedService, inherited: InheritedState) -> None:
        super().__init__(change, service)
        self.inherited = inherited
        self.owners: set[str] = set()

    def _must_hand_over(self, new: Generation) -> bool:
        """Workers of another service must never answer for this one, nor laxer ones of its own."""
        wanted = set(new.public_sockets)
        for name, old in self.inherited.services.items():
            same = name == self.change.service
            if same and not overlap_is_unsafe(old.client_auth, self.after):
                continue
            if wanted & set(old.sockets):
                self.owners.add(name)
        return bool(self.owners)

    @property
    def _is_unserved(self) -> bool:
        """False: until all is ready here, the previous daemon must be able to continue."""
        return False

    async def retire_old(self) -> None:
        """The sockets belong to this daemon now, and get the options of its plan."""
        with contextlib.suppress(OSError):
            self._new.apply_options()
        await super().retire_old()

    async def accept_late(self) -> None:
        """Accepts once the `owners` have stopped accepting."""
        for name in self.owners:
            await self.inherited.previous.released(name)
        await super().accept_late()


class InheritTask(Step):
    """A task that was completed under the previous daemon, and need not run again."""

    async def retire_old(self) -> None:
        """Counts it as completed here."""
        generation = self.service.new_generation(self.after)
        generation.record.completed = True
        self.service.promote(generation)
        self.service.complete()


class AwaitPrevious(Start):
    """A service that cannot run next to the old: it starts once `owners` have ended. It binds then,
    unless it `inherits` its sockets.
    """

    def __init__(
        self,
        change: Change,
        service: ManagedService,
        previous: PreviousDaemon,
        owners: Collection[str],
        *,
        inherits: bool = False,
    ) -> None:
        super().__init__(change, service)
        self.previous = previous
        self.owners = owners
        self.inherits = inherits

    async def prepare(self) -> None:
        """Takes its sockets over, if there are any. Other addresses are not free yet."""
        if self.inherits:
            await super().prepare()

    async def until_possible(self) -> None:
        """Returns once the `owners` have ended."""
        for name in self.owners:
            await self.previous.ended(name)


def inheriting_step(
    change: Change, service: ManagedService, inherited: InheritedState, deferred: Collection[str]
) -> Step:
    """The step that takes a service over; those in `deferred` need not get ready. A service that
    did not serve before may fail alone, as may a new one that needs a deferred one.
    """
    plan, old = change.plan, inherited.services.get(change.service)
    needs_deferred = any(d.service in deferred for d in plan.depends_on)
    if plan.is_task:
        if old is not None and plan.definition.run == "once" and old.completed == task_mark(plan):
            return InheritTask(change, service)
        if old is not None and not old.completed:  # it may be running there
            return AwaitPrevious(change, service, inherited.previous, {change.service})
        return Start(change, service) if needs_deferred else Task(change, service)
    if plan.workers and (owners := _in_the_way(change, inherited)):
        alone = owners == {change.service} and not plan.stands_alone
        inherits = alone and old is not None and not old.binds
        return AwaitPrevious(change, service, inherited.previous, owners, inherits=inherits)
    serves = old is not None and old.serves
    if not serves and plan.workers and (old is not None or needs_deferred):
        return Start(change, service)
    if plan.stands_alone and plan.workers:
        return Interrupt(change, service)
    return Inherit(change, service, inherited)


def _in_the_way(change: Change, inherited: InheritedState) -> set[str]:
    """Services of the previous daemon that must have ended first: those whose programs bind an
    address wanted here, those on an address that a program binds itself here, and its own workers
    if the GPUs have no room for both.
    """
    plan, old = change.plan, inherited.services.get(change.service)
    alone = plan.never_overlaps or not plan.fits_twice or (old is not None and bool(old.holds))
    found = {change.service} if alone and old is not None else set()
    addresses = {str(address) for address in plan.addresses}
    bound = plan.addresses if plan.binds_itself else ()
    keys = {key for address in bound for key in _keys(address)}
    for name, old in inherited.services.items():
        if addresses & set(old.binds) or keys & set(old.sockets):
            found.add(name)
    return found


def _keys(address: Address) -> list[str]:
    if address.kind != "tcp":
        return [unix_key(address.path)]
    try:
        return [tcp_key(host, address.port) for _, host in bind.hosts(address)]
    except OSError:
        return []  # the program reports it
