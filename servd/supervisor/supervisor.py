"""All services together: makes what runs equal to a plan, in the order of its graph."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import structlog

from servd.core import graph
from servd.core.errors import StartError
from servd.core.events import Event
from servd.plan.change import Change
from servd.plan.diff import diff
from servd.plan.model import DependencyPlan, Plan, ServicePlan
from servd.supervisor.apply.inherit import Inherit, inheriting_step
from servd.supervisor.apply.mode import RELOAD, STOP, ApplyMode
from servd.supervisor.apply.removal import Remove
from servd.supervisor.apply.step import Step
from servd.supervisor.apply.steps import Start, step_for
from servd.supervisor.apply.transaction import ApplyTransaction, to_the_end
from servd.supervisor.context import SupervisorContext
from servd.supervisor.found_addresses import AddressFinder
from servd.supervisor.respawn import Death, RestartHistory, after_death
from servd.supervisor.service import ManagedService
from servd.supervisor.sockets.pool import Bound
from servd.wire.graces import STOP_SECONDS

log = structlog.get_logger()


class Supervisor:
    """Makes what runs equal to a plan by applying a diff: from nothing at the first start, next to
    the previous daemon at a take-over, to nothing at the stop.

    `plan` is what runs. `numbers` are the last generation numbers by service; none is used twice.
    """

    def __init__(
        self, context: SupervisorContext, numbers: Mapping[str, int] | None = None
    ) -> None:
        self.context = context
        self.plan = Plan()
        self.numbers = dict(numbers or {})
        self.services: dict[str, ManagedService] = {}
        self.addresses = AddressFinder(self.services, context.pool, context.workers.registry)
        self.leaving: set[ManagedService] = set()
        self.failed_at_start: dict[str, str] = {}
        self._adding: dict[str, ManagedService] = {}
        self._changing: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._overdue = 0

    def _service(self, plan: ServicePlan) -> ManagedService:
        name = plan.name

        def number() -> int:
            self.numbers[name] = self.numbers.get(name, 0) + 1
            return self.numbers[name]

        return ManagedService(plan, self.context, number)

    # applying

    async def apply(
        self, changes: Collection[Change], plan: Plan, mode: ApplyMode = RELOAD
    ) -> list[asyncio.Task[Any]]:
        """Makes `changes`, which lead to `plan`, as `mode` says. Returns tasks that are done when
        everything old has ended; waiting for them is optional. Raises `ApplyError` when everything
        was undone, and what `PreviousDaemon.agree` raises.
        """
        self.context.arbiter.begin()
        added = {c.service: self._service(c.plan) for c in changes if c.kind == "add"}
        steps = self._steps(changes, {**self.services, **added}, mode)
        self._connect(steps)
        needs = plan.graph
        transaction = ApplyTransaction(steps, {name: needs[name] for name in graph.order(needs)})
        self._adding = added
        over = asyncio.Event()
        self._changing = dict.fromkeys(steps, over)
        try:
            await transaction.prepare()
            return await to_the_end(self._commit(transaction, plan, added, mode))
        finally:
            self._adding, self._changing = {}, {}
            over.set()

    def _steps(
        self, changes: Collection[Change], services: Mapping[str, ManagedService], mode: ApplyMode
    ) -> dict[str, Step]:
        """A step for each change. Changes list dependencies first."""
        steps: dict[str, Step] = {}
        for change in changes:
            service = services[change.service]
            if mode.inherited is not None:
                deferred = {name for name, step in steps.items() if isinstance(step, Start)}
                step = inheriting_step(change, service, mode.inherited, deferred)
            elif change.kind == "add" and mode.tolerant:
                step = Start(change, service, tolerant=True)
            elif self._has_to_wait(change, service, steps):
                step = Start(change, service)
            else:
                step = step_for(change, service)
            steps[change.service] = step
        return steps

    def _has_to_wait(
        self, change: Change, service: ManagedService, steps: Mapping[str, Step]
    ) -> bool:
        """Whether a service that never ran needs one that is not made ready: it fails nothing."""
        ran = service.current is not None and service.current.workers.has_begun
        if ran or not change.starts_anew:
            return False
        made_ready = {
            name
            for name, step in steps.items()
            if step.change.starts_anew and not isinstance(step, Start)
        }
        needs = change.plan.depends_on
        return any(d.service not in made_ready and not self._met(d) for d in needs)

    def _connect(self, steps: Mapping[str, Step]) -> None:
        """Gives each removal the services that need what it removes."""
        needed_by = graph.dependents(self.plan.graph)
        for name, step in steps.items():
            if isinstance(step, Remove):
                step.needed_by = [steps[other] for other in needed_by[name] if other in steps]
                step.dependents = [
                    self.services[other] for other in needed_by[name] if other in self.services
                ]

    async def _commit(
        self,
        transaction: ApplyTransaction,
        plan: Plan,
        added: Mapping[str, ManagedService],
        mode: ApplyMode,
    ) -> list[asyncio.Task[Any]]:
        """Makes the moves after the point of no return, and records the new plan."""
        steps = transaction.steps
        if mode.inherited is not None:
            await self._agree(transaction, mode)
        if steps and mode.announce:
            log.info(Event.RELOAD_PREPARED, services=list(steps))
        await transaction.commit()
        self.plan = plan
        self.services.update(added)
        for name, step in steps.items():
            if isinstance(step, Start):
                self._begin(step, mode)
            elif step.change.kind == "remove":
                self._let_go(self.services.pop(name), step)
        if not self.context.stopping.is_set():
            self.retry(self.services if mode.retry else () if mode.tolerant else steps)
        return [self._keep(step.wait_ended()) for step in steps.values()]

    async def _agree(self, transaction: ApplyTransaction, mode: ApplyMode) -> None:
        """Replaces the previous daemon; undoes everything if that one does not agree."""
        assert mode.inherited is not None
        inheriting = [step for step in transaction.steps.values() if isinstance(step, Inherit)]
        try:
            await mode.inherited.previous.agree({n for step in inheriting for n in step.owners})
        except BaseException:
            await transaction.undo()
            raise
        self.context.pool.claim_all()

    def _let_go(self, service: ManagedService, step: Step) -> None:
        assert isinstance(step, Remove)
        self.leaving.add(service)

        def over(_: object) -> None:
            self.leaving.discard(service)
            self._overdue += service.overdue

        if step.gone is not None:
            step.gone.add_done_callback(over)

    # services that start by themselves

    def _begin(self, step: Start, mode: ApplyMode) -> None:
        service = step.service
        if step.error:
            service.starter = self._keep(self._start(service))
            return
        if not mode.tolerant:
            service.milestones.settled.set()  # no caller of a reload waits for it
        service.starter = self._keep(self._start_when_possible(step))

    async def _start_when_possible(self, step: Start) -> None:
        await step.until_possible()
        if not self.context.stopping.is_set():
            await self._start(step.service)

    async def _start(self, service: ManagedService) -> None:
        """Binds a service, waits for its dependencies, then starts it. Reports failures."""
        try:
            if service.current is None or service.current.has_ended:
                await self._bind(service)
            if unmet := [d.service for d in service.plan.depends_on if not self._met(d)]:
                service.set_state("waiting", reason=f"needs {', '.join(unmet)}")
            await self._until_startable(service)
            await service.start()
        except StartError as error:
            self._report(service, str(error))
            if service.current is None:
                service.fail(str(error))
        except Exception as error:  # servd's own fault must not leave the others waiting
            log.exception(Event.INTERNAL_ERROR, service=service.plan.name)
            self.failed_at_start[service.plan.name] = f"internal error: {error}"
            service.fail(f"internal error: {error}")

    async def _bind(self, service: ManagedService) -> None:
        """Binds a service. Failures are retried like those of a worker: an address that is
        taken becomes free, a name can be resolved, a folder is made. Raises `StartError`.
        """
        loop, history = asyncio.get_running_loop(), RestartHistory()
        while True:
            try:
                service.bind()
            except StartError as error:
                unbound = Death(status=-1, was_ready=False, lived=0.0)
                jitter = random.uniform(-1, 1)  # noqa: S311  # spreads attempts
                restart = service.plan.restart
                history = after_death(history, unbound, restart, loop.time(), jitter)
                handed = any(sock.address.kind == "fd" for sock in service.plan.sockets)
                if history.over or handed:  # whoever started servd gives no other sockets
                    raise
                if history.failures == 1:
                    self._report(service, str(error))
                await service.wait_to_bind(str(error), history.until - loop.time())
            else:
                service.error = ""
                return

    async def _until_startable(self, service: ManagedService) -> None:
        """Returns once a service has what it needs, and no change of it is being applied: one that
        is committed takes its place, and ends this.
        """
        while True:
            needs = service.plan.depends_on
            await asyncio.gather(*(self._wait_for(service, dependency) for dependency in needs))
            changing = self._changing.get(service.plan.name)
            if changing is None:
                return
            await changing.wait()

    def _met(self, dependency: DependencyPlan) -> bool:
        service = self.services.get(dependency.service)
        return service is not None and service.meets(dependency.condition)

    async def _wait_for(self, service: ManagedService, dependency: DependencyPlan) -> None:
        """Waits until a dependency meets its condition. One that fails leaves the service waiting,
        and settled: the start as a whole does not wait for it.
        """
        if self._met(dependency):
            return
        needed = self.services[dependency.service].milestones
        condition = needed.started if dependency.condition == "started" else needed.ready
        reached = asyncio.ensure_future(condition.wait())
        settled = asyncio.ensure_future(needed.settled.wait())
        try:
            await asyncio.wait({reached, settled}, return_when=asyncio.FIRST_COMPLETED)
            if not condition.is_set():
                service.error = f"waiting for {dependency.service}"
                service.log.warning(Event.SERVICE_WAITING, waiting_for=dependency.service)
                service.milestones.settled.set()
                await reached
                service.error = ""
        finally:
            reached.cancel()
            settled.cancel()

    def _report(self, service: ManagedService, reason: str) -> None:
        self.failed_at_start[service.plan.name] = reason
        last = service.last_exit
        details = {"exit_status": last.status, "last_lines": list(last.last_lines)} if last else {}
        service.log.error(Event.SERVICE_CANNOT_START, error=reason, **details)

    async def settled(self) -> dict[str, str]:
        """Waits until each service is ready or known not to be for now. Returns the reasons of
        those that could not start, by name.
        """
        await asyncio.gather(*(s.milestones.settled.wait() for s in self.services.values()))
        await asyncio.sleep(0)
        return dict(self.failed_at_start)

    def retry(self, names: Collection[str]) -> None:
        """Ends every back-off of these services and retries failed ones."""
        for name in names:
            service = self.services.get(name)
            if service is None or not service.plan.workers:
                continue
            starting = service.starter is not None and not service.starter.done()
            service.bind_now.set()
            if not starting and not service.retry():
                service.starter = self._keep(self._start(service))

    def _keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def lost_sockets(self) -> list[Bound]:
        """Unix sockets that clients cannot find because their files were deleted."""
        return [item for item in self.context.pool.bound.values() if item.is_lost]

    # ending

    async def release(self, names: Collection[str], reason: str) -> None:
        """Begins to stop these services; returns once they accept no more."""
        known = [self.services[name] for name in names if name in self.services]
        await asyncio.gather(*(service.begin_stop(reason) for service in known))

    async def stop(
        self,
        timeout: float,
        reason: str = "servd is stopping",
        on_end: Callable[[str], None] = lambda name: None,
    ) -> bool:
        """Stops dependents before their dependencies, independent ones in parallel. Calls `on_end`
        with the name of each service that has ended. Kills what remains after `timeout` seconds.
        Returns whether all ended by themselves.
        """
        before = (
            self._overdue_in_all
        )  # what was killed by an earlier reload is no matter of the stop
        graceful = await self._drain_all(timeout, reason, on_end)
        await asyncio.gather(*(service.wait_gone() for service in self.leaving))
        await asyncio.sleep(0)  # lets overdue workers be counted
        self.context.pool.close()
        await self.context.arbiter.end()
        return graceful and self._overdue_in_all == before

    @property
    def _overdue_in_all(self) -> int:
        """Workers that did not exit in time, since the daemon started."""
        services = {*self.services.values(), *self.leaving}
        return self._overdue + sum(service.overdue for service in services)

    async def _drain_all(self, timeout: float, reason: str, on_end: Callable[[str], None]) -> bool:
        """Applies the diff to nothing. Returns whether that took at most `timeout` seconds."""
        changes = [replace(change, why=reason) for change in diff(self.plan, Plan())]

        async def drain() -> None:
            drains = await self.apply(changes, Plan(), STOP)
            await asyncio.gather(*map(end, changes, drains))
            await asyncio.gather(*(service.wait_gone() for service in self.leaving))

        async def end(change: Change, drained: asyncio.Task[Any]) -> None:
            await drained
            on_end(change.service)

        draining = self._keep(drain())
        done, _ = await asyncio.wait({draining}, timeout=timeout)
        if not done:
            log.warning(Event.SHUTDOWN_TIMEOUT, seconds=timeout)
            self.kill()
        await draining
        return bool(done)

    def kill(self) -> None:
        """Kills everything immediately."""
        for service in [*self.services.values(), *self._adding.values(), *self.leaving]:
            service.kill()

    @property
    def summary(self) -> str:
        """`3 of 4 services ready; ranker: backoff`, for a status line."""
        known = self.services.values()
        wanted = [s for s in known if s.plan.workers and s.state != "exited"]
        ready = [s for s in wanted if s.is_ready]
        rest = ", ".join(f"{s.plan.name}: {s.state}" for s in wanted if not s.is_ready)
        text = f"{len(ready)} of {len(wanted)} services ready"
        held_up = ", ".join(s.plan.name for s in known if s.is_held_up)
        waits = f"a reload waits for {held_up} to drain" if held_up else ""
        return "; ".join(filter(None, (text, rest, waits)))


def start_budget(plan: Plan) -> float:
    """Seconds after which a start is considered to hang, though each may be extended. Workers on a
    GPU start one by one.
    """
    longest = max((s.start_seconds for s in plan.services), default=0.0)
    starts = sum(max(1, s.workers if s.gpus else 1) for s in plan.services)
    return longest * max(1, starts) + 10.0


def stop_budget(plan: Plan, grace: float = STOP_SECONDS) -> float:
    """Seconds that a graceful stop can take: the longest chain of drains, and `grace`."""
    return plan.stop_seconds + grace
