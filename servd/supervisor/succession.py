"""How the services of one daemon become those of the next one, which takes its place."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from servd.plan.change import Change
from servd.plan.diff import client_auth, overlap_is_unsafe
from servd.plan.model import ServicePlan
from servd.supervisor.service import Service
from servd.supervisor.step import Step
from servd.supervisor.steps import Defer, Interrupt, Replace, Task


@dataclass(frozen=True, slots=True)
class Before:
    """A service as the daemon before has it: whether a client would be answered, how clients are
    asked for certificates ("": without TLS), and the task that has been completed.
    """

    serves: bool
    client_auth: str = ""
    completed: str = ""


class Predecessor(Protocol):
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
class Heritage:
    """What the daemon before leaves: its services by their names, and itself."""

    services: Mapping[str, Before]
    predecessor: Predecessor


def before(service: Service) -> Before:
    """A service, as the next daemon needs to know it."""
    current = service.current
    completed = service.plan.is_task and current is not None and current.completed
    return Before(
        serves=service.serves or completed,
        client_auth=client_auth(service.plan),
        completed=task_mark(service.plan) if completed else "",
    )


def task_mark(plan: ServicePlan) -> str:
    """Another for every definition of a task. Keys with their default values are left out: another
    version of servd may have more of them.
    """
    return hashlib.sha256(
        plan.definition.model_dump_json(exclude_defaults=True).encode()
    ).hexdigest()


class Inherit(Replace):
    """New workers on the sockets of the old: ready while those serve, accepting beside them, but
    where the two must not accept from one socket.
    """

    def __init__(self, change: Change, service: Service, heritage: Heritage) -> None:
        super().__init__(change, service)
        self.predecessor = heritage.predecessor
        old = heritage.services.get(change.service)
        self.unsafe = old is not None and overlap_is_unsafe(old.client_auth, self.after)

    def _must_hand_over(self, new: object) -> bool:
        return self.unsafe

    @property
    def _serves_nobody(self) -> bool:
        """Nothing that is here before all is ready may keep the daemon before from going on."""
        return False

    async def take_over(self) -> None:
        """Accepts once the others do not any more."""
        if self.unsafe:
            await self.predecessor.released(self.change.service)
        await super().take_over()


class Inherited(Step):
    """A task that need not run again: it was completed before."""

    async def retire(self) -> None:
        """It is completed here, too."""
        generation = self.service.new_generation(self.after)
        generation.completed = True
        self.service.promote(generation)
        self.service.complete()


class Await(Defer):
    """What cannot run here beside the old: it starts once that has ended."""

    def __init__(self, change: Change, service: Service, heritage: Heritage) -> None:
        super().__init__(change, service)
        self.predecessor = heritage.predecessor

    async def until_possible(self) -> None:
        """Returns once the old has ended."""
        await self.predecessor.ended(self.change.service)


def succeed(
    change: Change, service: Service, heritage: Heritage, deferred: Collection[str]
) -> Step:
    """The step that takes a service over, where those in `deferred` are not expected to be ready.

    What did not serve before fails nothing when it does not now; nor does what is new and needs
    such a one.
    """
    plan, old = change.plan, heritage.services.get(change.service)
    if plan.is_task:
        if old is not None and plan.definition.run == "once" and old.completed == task_mark(plan):
            return Inherited(change, service)
        return Task(change, service) if old is None or old.serves else Defer(change, service)
    serves = old is not None and old.serves
    if not serves and plan.workers:
        needs_deferred = any(d.service in deferred for d in plan.depends_on)
        if old is not None or needs_deferred:
            return Defer(change, service)
    if plan.stands_alone and plan.workers:
        return Await(change, service, heritage) if serves else Interrupt(change, service)
    return Inherit(change, service, heritage)
