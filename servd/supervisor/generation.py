"""One generation of a service: a plan with its sockets and its workers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, Protocol

from servd.core.events import Event
from servd.plan.model import FoundAddress, ServicePlan
from servd.supervisor.app_folders import make_app_folders
from servd.supervisor.circus.launch import Launch
from servd.supervisor.context import SupervisorContext
from servd.supervisor.drain_text import time_left, waiting_for
from servd.supervisor.exits import WorkerExit
from servd.supervisor.external_target import ExternalTarget
from servd.supervisor.no_workers import NoWorkers
from servd.supervisor.respawn import RestartHistory
from servd.supervisor.sockets.pool import Bound, Listener
from servd.supervisor.worker_group import WorkerGroup
from servd.supervisor.worker_record import WorkerRecord
from servd.wire.worker_spec import SocketSpec

_REQUESTS = frozenset({"request", "event stream", "handshake"})
"""What a worker answers to its end, of what it reports during a drain. A model answers by event
streams, too."""


class GenerationOwner(Protocol):
    """The service that a generation belongs to."""

    log: Any

    def refresh(self) -> None: ...
    def lost(self, generation: Generation, exit_: WorkerExit, history: RestartHistory) -> None: ...
    def worker_overdue(self) -> None: ...


class Generation:
    """Runs one `ServicePlan` under one number. It is bound (sockets, and `workers` that do
    nothing), then runs (`workers` are a group), then ends (the group drains, the sockets are
    released).
    """

    def __init__(
        self, plan: ServicePlan, number: int, context: SupervisorContext, owner: GenerationOwner
    ) -> None:
        self.plan = plan
        self.number = number
        self.context = context
        self.owner = owner
        self.log = owner.log.bind(generation=number)
        self.listeners: list[Listener] = []
        self.record = WorkerRecord()
        self.workers: NoWorkers | WorkerGroup = NoWorkers(plan, self.record)

    # bound

    def bind(self) -> None:
        """Acquires the sockets: connections wait in their queues from now on. A service that is
        kept stopped does not listen, so that its clients are refused. Raises `StartError`.
        """
        if self.plan.workers == 0:
            return
        known = set(self.context.pool.bound)
        for socket_plan in self.plan.sockets:
            listener = self.context.pool.acquire(socket_plan)
            self.listeners.append(listener)
            fresh = any(item.key not in known for item in listener.bound)
            if fresh and not socket_plan.internal:
                self.log.info(Event.LISTENING, address=listener.url)

    def apply_options(self) -> None:
        """Gives the sockets this plan's backlog, mode and owner. Raises OSError."""
        for listener in self.listeners:
            listener.apply_options()

    def release(self) -> None:
        """Releases the sockets."""
        while self.listeners:
            self.context.pool.release(self.listeners.pop())

    @property
    def public_sockets(self) -> dict[str, Bound]:
        """The sockets that are not between services, by key."""
        return {
            item.key: item
            for listener in self.listeners
            if not listener.plan.internal
            for item in listener.bound
        }

    def uses(self, bound: Collection[Bound]) -> bool:
        """Whether it listens on one of these sockets."""
        return any(item in bound for listener in self.listeners for item in listener.bound)

    # running

    async def begin(
        self, *, accept: bool = True, probation: bool = False, slots: int | None = None
    ) -> None:
        """Starts the workers (the first `slots` of them), without waiting for them. Without
        `accept` they get ready and wait for `accept()`; on `probation` none is started again.
        """
        if self.plan.external is not None:
            self.workers = target = ExternalTarget(self.plan, self)
            target.start()
            return
        make_app_folders(self.plan)
        sockets = tuple(
            (SocketSpec(plan.name, 0, plan.tls, plan.address.path), sock)
            for listener in self.listeners
            for plan in (listener.plan,)
            for sock in listener.sockets
        )
        launch = Launch(self.plan, self.number, sockets, self.context.workers, accept)
        self.workers = group = WorkerGroup(launch, self, self.context, probation=probation)
        await group.start(slots)

    async def until_ready(self, slots: Iterable[int] | None = None) -> None:
        """Waits for every worker (of `slots`). Raises `FailedStartError`."""
        await self.workers.until_ready(slots)

    def check(self) -> None:
        """Raises `FailedStartError` when a worker of a generation on probation has ended."""
        if not self.is_ready and not self.workers.exited:
            raise self.record.failure()

    @property
    def is_ready(self) -> bool:
        """Whether all workers are ready, or a task is completed."""
        return self.workers.is_ready

    @property
    def waits(self) -> str:
        """Why a worker is not started yet; "" if none waits."""
        return self.workers.watcher.gate.reason if isinstance(self.workers, WorkerGroup) else ""

    @property
    def completed(self) -> bool:
        """Whether a task ended well."""
        return self.record.completed

    @property
    def serves(self) -> bool:
        """Whether a client would be answered."""
        return self.workers.serves

    @property
    def grows(self) -> bool:
        """Whether additional workers are starting, and all others are ready."""
        workers = self.workers
        return bool(workers.growing) and workers.ready_count >= workers.wanted - workers.growing

    def learn(self, found: tuple[FoundAddress, ...]) -> None:
        """Its program was found to bind these addresses."""
        self.plan = replace(self.plan, found=found)
        self.workers.learn(self.plan)

    async def adjust(self, plan: ServicePlan) -> None:
        """Gives the running workers what applies of `plan`, and starts new ones by it. Raises
        `FailedStartError` or OSError; the caller then adjusts back.
        """
        self.plan = plan
        for listener in self.listeners:
            listener.plan = next(s for s in plan.sockets if s.key == listener.plan.key)
        self.apply_options()
        await self.workers.adjust(plan)

    async def resume(self) -> None:
        """Starts an ended generation again, on sockets that it may have acquired already."""
        if not self.listeners:
            self.bind()
        await self.begin()

    # ending

    async def stop_accepting(self, reason: str = "replaced") -> None:
        """Begins the end: returns once the workers have accepted all that had connected and accept
        no more, and the sockets without other users are closed. `reason` is for people.
        """
        if self.serves:
            going = self.context.pool.detach(self.listeners)
            await asyncio.gather(*(item.empty() for item in going))
        await self.workers.stop_accepting(reason)
        self.release()

    async def wait_ended(self) -> None:
        """Returns once every worker has ended."""
        await self.workers.wait_ended()

    async def discard(self) -> None:
        """Undoes an unwanted generation; returns when it has ended completely."""
        if not self.workers.accepts:
            self.workers.kill_unready()
        await self.stop_accepting("undone")
        await self.wait_ended()

    async def abort_drain(self) -> None:
        """Ends a drain early; returns when all workers have ended."""
        await self.workers.abort_drains()
        await self.wait_ended()

    @property
    def has_ended(self) -> bool:
        """Whether it ran, and stopped as requested."""
        return self.workers.has_ended

    @property
    def is_over(self) -> bool:
        """Whether none of its processes runs."""
        return not self.workers.has_begun or self.workers.has_ended

    @property
    def is_answering(self) -> bool:
        """Whether draining workers may be answering requests; of a command, nothing is known."""
        reports = [p.report.draining for p in self.workers.leaving]
        kinds = {kind for report in reports for kind, count in report.items() if count}
        return not all(reports) or not kinds.isdisjoint(_REQUESTS)

    @property
    def requests_in_flight(self) -> int:
        """Requests that draining workers still answer, by their reports; no event streams."""
        return sum(p.report.draining.get("request", 0) for p in self.workers.leaving)

    @property
    def shown_drain(self) -> str:
        """What its drain waits for, and how much longer at most."""
        leaving = self.workers.leaving
        counts = [{k: n for k, n in p.report.draining.items() if k in _REQUESTS} for p in leaving]
        now = asyncio.get_running_loop().time()
        left = max((self.plan.drain - (now - (p.asked_at or now)) for p in leaving), default=0)
        does = f"answers {waiting_for(counts)}" if any(counts) else "has not exited"
        return f"{self.plan.name} generation {self.number} {does}, {time_left(left)}"

    # what the workers report

    def lost(self, exit_: WorkerExit, history: RestartHistory) -> None:
        """A worker exited unexpectedly."""
        self.owner.lost(self, exit_, history)

    def overdue(self) -> None:
        """A worker did not end in time."""
        self.owner.worker_overdue()

    def refresh(self) -> None:
        """Something about the workers has changed."""
        self.owner.refresh()
