"""Replacing workers that run but should not go on: hung ones at once, all others one at a time,
each by a worker that is ready before it goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any, Protocol

from servd.plan.model import ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.circus.watcher import ServiceWatcher
from servd.supervisor.counters import CounterRegistry
from servd.supervisor.exits import FailedStartError
from servd.supervisor.health.monitor import HealthMonitor

ABORT_GRACE = 0.5
"""Seconds for a hung worker to write its stack to the log, before SIGKILL."""


class Team(Protocol):
    """The workers that are looked after: those of one generation."""

    plan: ServicePlan
    watcher: ServiceWatcher | None
    log: Any

    @property
    def counts(self) -> CounterRegistry:
        """Where restarts are counted."""

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` for as long as the generation lives."""

    def refresh(self) -> None:
        """Something about the workers has changed."""

    async def withhold(self, slots: list[int]) -> None:
        """Drains the workers of `slots` to their end, and leaves their places empty."""

    async def put_back(self, slots: list[int]) -> None:
        """Starts the workers of `slots` again. Raises `FailedStartError`."""


class Recycler:
    """Looks after the ready workers of a generation, and replaces those that have to go."""

    def __init__(self, team: Team) -> None:
        self.team = team
        self._vigils: dict[WorkerProcess, HealthMonitor] = {}
        self._waiting: dict[WorkerProcess, str] = {}
        self._proven = asyncio.Event()
        self._busy = False

    def watch(self, process: WorkerProcess) -> None:
        """Looks after a worker from now on, which has just become ready."""
        process.on_recycle = lambda reason: self.due(process, reason)
        self._vigils[process] = HealthMonitor(process, self.team.plan, self)
        process.exited.add_done_callback(lambda _: self._forget(process))
        if process.due:
            self.due(process, process.due)

    def renew(self) -> None:
        """Goes on as the plan has it now."""
        for vigil in self._vigils.values():
            vigil.renew(self.team.plan)

    def prove(self) -> None:
        """The trial of the generation is over: workers may be replaced."""
        self._proven.set()

    def end(self) -> None:
        """Looks after nothing any more."""
        for vigil in self._vigils.values():
            vigil.end()
        self._waiting.clear()

    def _forget(self, process: WorkerProcess) -> None:
        self._vigils.pop(process, None)
        self._waiting.pop(process, None)

    # what a vigil notices

    def hung(self, process: WorkerProcess, seconds: float) -> None:
        """Has its stack written to the log (faulthandler, by SIGABRT), then ends it; the watcher
        replaces it as any that died.
        """
        process.ended_for = "watchdog"
        process.report.failed = f"gave no sign of life for {seconds:g} s"
        self._log(process).error("worker hung", seconds=seconds, then="replaced; its stack follows")
        process.signal_self(signal.SIGABRT)
        self.team.keep(self._make_sure(process))

    async def _make_sure(self, process: WorkerProcess) -> None:
        await asyncio.wait({process.exited}, timeout=ABORT_GRACE)
        process.signal_group(signal.SIGKILL)

    def unwell(self, process: WorkerProcess, why: str) -> None:
        """Replaces it; until then the service shows it."""
        self.due(process, "health", why=why)
        self.team.refresh()

    def recovered(self, process: WorkerProcess) -> None:
        """It may stay, unless its replacement is on its way."""
        if self._waiting.get(process) == "health":
            del self._waiting[process]
        self._log(process).info("worker healthy again")
        self.team.refresh()

    def hopeless(self, process: WorkerProcess, **details: Any) -> None:
        """Says so, and leaves it alone: replacing it would never end."""
        reason = "a worker that has just started is over limits.memory"
        self._log(process).warning("worker not recycled", reason=reason, **details)

    def due(self, process: WorkerProcess, reason: str, **details: Any) -> None:
        """Replaces it when its turn comes."""
        if process.stopping or process in self._waiting or process.exited.done():
            return
        self._waiting[process] = reason
        self._log(process).info("worker to be recycled", reason=reason, **details)
        if not self._busy:
            self._busy = True
            self.team.keep(self._work())

    def _log(self, process: WorkerProcess) -> Any:
        return self.team.log.bind(worker=process.slot, pid=process.pid)

    async def _work(self) -> None:
        """One after the other, until none waits."""
        try:
            await self._proven.wait()
            while self._waiting:
                process, reason = next(iter(self._waiting.items()))
                await self._replace(process, reason)
                self._waiting.pop(process, None)
        finally:
            self._busy = False

    async def _replace(self, process: WorkerProcess, reason: str) -> None:
        watcher = self.team.watcher
        assert watcher is not None
        if self.team.plan.stands_alone:
            self._leaves(process, reason)
            await self.team.withhold([process.slot])
            with contextlib.suppress(FailedStartError):  # tried again, as any that dies
                await self.team.put_back([process.slot])
            return
        loop, restart = asyncio.get_running_loop(), self.team.plan.restart
        while self._still_waits(process) and watcher.is_active():
            if await self._has_successor(watcher, process):
                self._leaves(process, reason)
                watcher.attempts.pop(process.slot, None)
                await watcher.kill_process(process)
                return
            attempts = watcher.attempts.get(process.slot)
            pause = attempts.until - loop.time() if attempts is not None else 0.0
            if attempts is not None and attempts.over:
                pause = restart.backoff_max
                why = "its replacement does not start"
                self._log(process).warning("worker kept", reason=why, again_in=pause)
            await asyncio.wait({process.exited}, timeout=max(0.0, pause))

    def _still_waits(self, process: WorkerProcess) -> bool:
        return process in self._waiting and not process.stopping and not process.exited.done()

    async def _has_successor(self, watcher: ServiceWatcher, process: WorkerProcess) -> bool:
        """Starts a worker in the same place; whether it has become ready."""
        successor = watcher.start_beside(process)
        if successor is None:
            return False
        over: set[asyncio.Future[Any]] = {successor.ready, successor.exited}
        await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
        return successor.was_ready and not process.exited.done()

    def _leaves(self, process: WorkerProcess, reason: str) -> None:
        self.team.counts.restarted(self.team.plan.name, reason)
        process.leaves_for = f"recycled: {reason}"
        self._log(process).info("worker recycled", reason=reason)
