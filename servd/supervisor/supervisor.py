"""All services together: what runs is made equal to a plan, in the order of its graph."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import structlog

from servd.core import graph
from servd.core.errors import StartError
from servd.plan.change import Change
from servd.plan.diff import diff
from servd.plan.model import DependencyPlan, Plan, ServicePlan
from servd.supervisor.apply.inherit import Inherit, InheritedState, PreviousDaemon, inheriting_step
from servd.supervisor.apply.removal import Remove
from servd.supervisor.apply.step import Step
from servd.supervisor.apply.steps import Defer, step_for
from servd.supervisor.apply.transaction import ApplyTransaction, to_the_end
from servd.supervisor.context import SupervisorContext
from servd.supervisor.service import ManagedService

log = structlog.get_logger()


class Supervisor:
    """Makes what runs equal to a plan: everything of it at the start, the difference at a reload,
    nothing of it at the stop.
    """

    def __init__(self, engine: SupervisorContext) -> None:
        self.engine = engine
        self.plan = Plan()
        self.services: dict[str, ManagedService] = {}
        self.leaving: set[ManagedService] = set()
        self._adding: dict[str, ManagedService] = {}
        self.numbers: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failed_at_start: dict[str, str] = {}
        self._overdue = 0

    def _service(self, plan: ServicePlan) -> ManagedService:
        name = plan.name

        def number() -> int:
            """Numbers of a name are never used twice, whatever becomes of the service."""
            self.numbers[name] = self.numbers.get(name, 0) + 1
            return self.numbers[name]

        return ManagedService(plan, self.engine, number)

    async def start(self, plan: Plan) -> dict[str, str]:
        """Starts every service as soon as its dependencies have met their conditions.

        Returns when each is ready or known not to be for now: the names of those that could not
        start, with the reason. What waits for them goes on waiting.
        """
        self.plan = plan
        self.services = {s.name: self._service(s) for s in plan.services}
        self.engine.arbiter.begin()
        for service in list(self.services.values()):
            self._start_anew(service)
        await asyncio.gather(*(s.milestones.settled.wait() for s in self.services.values()))
        await asyncio.sleep(0)
        return dict(self._failed_at_start)

    async def take_over(self, plan: Plan, heritage: InheritedState) -> None:
        """Starts every service beside the same one of the daemon before, all or none: that goes on
        until all is ready here.

        Raises `ApplyError` when everything was undone, and what `Predecessor.agree` raises.
        """
        self.engine.arbiter.begin()
        services = {s.name: self._service(s) for s in plan.services}
        steps: dict[str, Step] = {}
        deferred: set[str] = set()
        for change in diff(Plan(), plan):  # dependencies come first
            name = change.service
            steps[name] = inheriting_step(change, services[name], heritage, deferred)
            if isinstance(steps[name], Defer):
                deferred.add(name)
        rollout = ApplyTransaction(steps, plan.graph)
        self._adding = services
        try:
            await rollout.prepare()
            await to_the_end(self._agreed(rollout, plan, services, heritage.predecessor))
        finally:
            self._adding = {}

    async def _agreed(
        self,
        rollout: ApplyTransaction,
        plan: Plan,
        services: dict[str, ManagedService],
        predecessor: PreviousDaemon,
    ) -> None:
        inheriting = [step for step in rollout.steps.values() if isinstance(step, Inherit)]
        try:
            await predecessor.agree({name for step in inheriting for name in step.owners})
        except BaseException:
            await rollout.undo()
            raise
        self.engine.pool.own()
        await self._commit(rollout, plan, services, retry=True)

    def _start_anew(self, service: ManagedService) -> None:
        """Takes the service's addresses and lets it start when it can; failures are reported."""
        try:
            if service.current is None or service.current.has_ended:
                service.bind()
        except StartError as error:
            self._report(service, str(error))
            service.fail(str(error))
            return
        service.starter = asyncio.get_running_loop().create_task(self._start_one(service))

    async def _start_deferred(self, step: Defer) -> None:
        await step.until_possible()
        if not self.engine.stopping.is_set():
            self._start_anew(step.service)

    async def _start_one(self, service: ManagedService) -> None:
        """Waits for what the service needs, then starts it."""
        if not all(self._met(dependency) for dependency in service.plan.depends_on):
            needs = ", ".join(d.service for d in service.plan.depends_on if not self._met(d))
            service.set_state("waiting", reason=f"needs {needs}")
        await asyncio.gather(
            *(self._wait_for(service, dependency) for dependency in service.plan.depends_on)
        )
        try:
            await service.start()
        except StartError as error:
            self._report(service, str(error))
        except Exception as error:  # a fault of ours must not leave the others waiting
            log.exception("internal error", service=service.plan.name)
            self._failed_at_start[service.plan.name] = f"internal error: {error}"
            service.fail(f"internal error: {error}")

    def _met(self, dependency: DependencyPlan) -> bool:
        service = self.services.get(dependency.service)
        return service is not None and service.meets(dependency.condition)

    async def _wait_for(self, service: ManagedService, dependency: DependencyPlan) -> None:
        """Waits until a dependency has met its condition; one that fails leaves the service
        waiting, and the start as a whole not waiting for it.
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
                service.log.warning("service waiting", waiting_for=dependency.service)
                service.milestones.settled.set()
                await reached
                service.error = ""
        finally:
            reached.cancel()
            settled.cancel()

    def _report(self, service: ManagedService, reason: str) -> None:
        """Says clearly, once, that a service could not start."""
        self._failed_at_start[service.plan.name] = reason
        last = service.last_exit
        details = {"exit_status": last.status, "last_lines": list(last.last_lines)} if last else {}
        service.log.error("service cannot start", error=reason, **details)

    async def apply(
        self, changes: Collection[Change], plan: Plan, *, retry: bool = True
    ) -> list[asyncio.Task[Any]]:
        """Makes `changes`, which lead to `plan`, all or none. Then what had failed is tried again
        (`retry`), but for what a person does by hand to something else.

        Returns tasks that are over when everything old has ended: nobody need wait for them.
        Raises `ApplyError` when everything was undone.
        """
        added = {c.service: self._service(c.plan) for c in changes if c.kind == "add"}
        services = {**self.services, **added}
        steps = self._steps(changes, services)
        self._connect(steps)
        needs = plan.graph
        rollout = ApplyTransaction(steps, {name: needs[name] for name in graph.order(needs)})
        self._adding = added
        try:
            await rollout.prepare()
            return await to_the_end(self._commit(rollout, plan, added, retry=retry))
        finally:
            self._adding = {}

    async def _commit(
        self,
        rollout: ApplyTransaction,
        plan: Plan,
        added: dict[str, ManagedService],
        *,
        retry: bool,
    ) -> list[asyncio.Task[Any]]:
        """Past the point of no return: brings the new into force, with the books about it."""
        await rollout.commit()
        steps = rollout.steps
        self.plan = plan
        self.services |= added
        for name, step in steps.items():
            if step.change.kind == "remove":
                self._let_go(self.services.pop(name), step)
            elif isinstance(step, Defer):
                step.service.starter = self._keep(self._start_deferred(step))
        if not self.engine.stopping.is_set():
            self.retry(self.services if retry else steps)
        return [self._keep(step.ended()) for step in steps.values()]

    def _steps(
        self, changes: Collection[Change], services: dict[str, ManagedService]
    ) -> dict[str, Step]:
        """A step for each change. What cannot run yet for the sake of a service that is not made
        ready by these changes goes on waiting, and fails nothing.
        """
        steps: dict[str, Step] = {}
        made_ready: set[str] = set()
        for change in changes:  # dependencies come first
            service = services[change.service]
            waits = change.starts_anew and any(
                dependency.service not in made_ready and not self._met(dependency)
                for dependency in change.plan.depends_on
            )
            never_began = service.current is None or service.current.watcher is None
            if waits and never_began:
                steps[change.service] = Defer(change, service)
                continue
            steps[change.service] = step_for(change, service)
            if change.starts_anew:
                made_ready.add(change.service)
        return steps

    def _connect(self, steps: Mapping[str, Step]) -> None:
        """Tells each removal who needed what goes."""
        needed_by = graph.dependents(self.plan.graph)
        for name, step in steps.items():
            if isinstance(step, Remove):
                step.needed_by = [steps[other] for other in needed_by[name] if other in steps]
                step.dependents = [
                    self.services[other] for other in needed_by[name] if other in self.services
                ]

    def _let_go(self, service: ManagedService, step: Step) -> None:
        assert isinstance(step, Remove)
        self.leaving.add(service)

        def over(_: object) -> None:
            self.leaving.discard(service)
            self._overdue += service.overdue

        if step.gone is not None:
            step.gone.add_done_callback(over)

    def retry(self, names: Collection[str]) -> None:
        """Clears every back-off and starts what had failed again, of these services."""
        for name in names:
            service = self.services.get(name)
            if service is None or not service.plan.workers:
                continue
            starting = service.starter is not None and not service.starter.done()
            if not starting and not service.retry():
                self._start_anew(service)

    def _keep(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def release(self, names: Collection[str], why: str) -> None:
        """Begins the end of these services: returns once they accept nothing any more."""
        known = [self.services[name] for name in names if name in self.services]
        await asyncio.gather(*(service.leave(why) for service in known))

    async def stop(
        self,
        timeout: float,
        why: str = "servd stops",
        on_end: Callable[[str], None] = lambda name: None,
    ) -> bool:
        """Stops dependents before their dependencies, independent ones at the same time. `on_end`
        is told of each that has ended.

        After `timeout` seconds whatever is left is killed. Returns whether all ended by themselves.
        """
        steps = {
            change.service: Remove(replace(change, why=why), self.services[change.service])
            for change in diff(self.plan, Plan())
        }
        self._connect(steps)
        leaving = [*self.services.values(), *self.leaving]
        graceful = True
        try:
            async with asyncio.timeout(timeout):
                await self._remove(list(steps.values()), on_end)
        except TimeoutError:
            graceful = False
            log.warning("shutdown timeout: killing what is left", seconds=timeout)
            self.kill()
            for service in leaving:
                await service.leave()
                await service.gone()
        self.engine.pool.close()
        await self.engine.arbiter.end()
        return graceful and not self._overdue and not any(s.overdue for s in leaving)

    async def _remove(self, steps: list[Remove], on_end: Callable[[str], None]) -> None:
        async def one(step: Remove) -> None:
            await step.ended()
            on_end(step.change.service)

        for step in steps:
            step.begin()
        await asyncio.gather(*(one(step) for step in steps))
        await asyncio.gather(*(service.gone() for service in self.leaving))

    def kill(self) -> None:
        """Ends everything at once."""
        for service in [*self.services.values(), *self._adding.values(), *self.leaving]:
            service.kill()

    @property
    def summary(self) -> str:
        """`3 of 4 services ready; ranker: backoff`, for a status line."""
        wanted = [s for s in self.services.values() if s.plan.workers]
        ready = [s for s in wanted if s.is_ready]
        rest = ", ".join(f"{s.plan.name}: {s.state}" for s in wanted if not s.is_ready)
        text = f"{len(ready)} of {len(wanted)} services ready"
        return f"{text}; {rest}" if rest else text


def start_budget(plan: Plan) -> float:
    """Seconds after which a start cannot be expected to be over any more."""
    longest = max((s.startup for s in plan.services), default=0.0)
    return longest * max(1, len(plan.services)) + 10.0


def stop_budget(plan: Plan, grace: float = 10.0) -> float:
    """Seconds that a graceful stop may take: the longest chain of drains, and `grace`."""
    longest: dict[str, float] = {}
    wanted_by = graph.dependents(plan.graph)
    for name in reversed(graph.order(plan.graph)):
        waits = max((longest[other] for other in wanted_by[name]), default=0.0)
        longest[name] = waits + plan.service(name).drain
    return max(longest.values(), default=0.0) + grace
