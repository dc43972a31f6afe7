"""All services together: started in the order of the graph, stopped in the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from servd import graph
from servd.errors import StartError
from servd.plan.model import DependencyPlan, Plan
from servd.supervisor.service import Engine, Service

log = structlog.get_logger()


class Supervisor:
    """Makes what runs equal to a plan: everything of it at the start, nothing of it at the stop."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.plan = Plan()
        self.services: dict[str, Service] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._failed_at_start: dict[str, str] = {}

    async def start(self, plan: Plan) -> dict[str, str]:
        """Starts every service as soon as its dependencies have met their conditions.

        Returns when each is ready or known not to be for now: the names of those that could not
        start, with the reason. What waits for them goes on waiting.
        """
        self.plan = plan
        self.services = {s.name: Service(s, self.engine) for s in plan.services}
        self.engine.arbiter.begin()
        for service in self.services.values():
            try:
                service.bind()
            except StartError as error:
                service.release()
                self._report(service, str(error))
                service.fail(str(error))
        loop = asyncio.get_running_loop()
        for name, service in self.services.items():
            if name not in self._failed_at_start:
                self._starting[name] = loop.create_task(self._start_one(service))
        await asyncio.gather(*(s.milestones.settled.wait() for s in self.services.values()))
        await asyncio.sleep(0)
        return dict(self._failed_at_start)

    async def _start_one(self, service: Service) -> None:
        """Waits for what the service needs, then starts it."""
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

    async def _wait_for(self, service: Service, dependency: DependencyPlan) -> None:
        """Waits until a dependency has met its condition; one that fails leaves the service
        waiting, and the start as a whole not waiting for it.
        """
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

    def _report(self, service: Service, reason: str) -> None:
        """Says clearly, once, that a service could not start."""
        self._failed_at_start[service.plan.name] = reason
        last = service.last_exit
        details = {"exit_status": last.status, "last_lines": list(last.last_lines)} if last else {}
        service.log.error("service cannot start", error=reason, **details)

    async def stop(self, timeout: float) -> bool:
        """Stops dependents before their dependencies, independent ones at the same time.

        After `timeout` seconds whatever is left is killed. Returns whether all ended by themselves.
        """
        for task in self._starting.values():
            task.cancel()
        graceful = True
        try:
            async with asyncio.timeout(timeout):
                await self._in_order(graph.dependents(self.plan.graph), self._stop_one)
        except TimeoutError:
            graceful = False
            log.warning("shutdown timeout: killing what is left", seconds=timeout)
            self.kill()
            await self._in_order({name: [] for name in self.services}, self._stop_one)
        self.engine.pool.close()
        await self.engine.arbiter.end()
        return graceful and not any(service.killed for service in self.services.values())

    async def _stop_one(self, name: str) -> None:
        await self.services[name].stop()

    @staticmethod
    async def _in_order(
        waits_for: dict[str, list[str]], act: Callable[[str], Awaitable[None]]
    ) -> None:
        """Runs `act` on each name, after all that it waits for."""
        done = {name: asyncio.Event() for name in waits_for}

        async def one(name: str) -> None:
            for other in waits_for[name]:
                await done[other].wait()
            await act(name)
            done[name].set()

        async with asyncio.TaskGroup() as group:
            for name in waits_for:
                group.create_task(one(name))

    def kill(self) -> None:
        """Ends everything at once."""
        for service in self.services.values():
            service.kill()

    @property
    def summary(self) -> str:
        """`3 of 4 services ready; ranker: backoff`, for a status line."""
        wanted = [s for s in self.services.values() if s.plan.workers]
        ready = [s for s in wanted if s.state == "ready"]
        rest = ", ".join(f"{s.plan.name}: {s.state}" for s in wanted if s.state != "ready")
        text = f"{len(ready)} of {len(wanted)} services ready"
        return f"{text}; {rest}" if rest else text


def stop_budget(plan: Plan, grace: float = 10.0) -> float:
    """Seconds that a graceful stop may take: the longest chain of drains, and `grace`."""
    longest: dict[str, float] = {}
    wanted_by = graph.dependents(plan.graph)
    for name in reversed(graph.order(plan.graph)):
        waits = max((longest[other] for other in wanted_by[name]), default=0.0)
        longest[name] = waits + plan.service(name).drain
    return max(longest.values(), default=0.0) + grace
