"""Replacing workers that run but should not go on: hung ones at once, all others one at a time,
each by a worker that is ready before it goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Collection, Coroutine
from typing import Any, Protocol

from servd.core.events import Event
from servd.plan.model import ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.circus.watcher import ServiceWatcher
from servd.supervisor.exits import FailedStartError
from servd.supervisor.health.monitor import HealthMonitor
from servd.wire.graces import ABORT_SECONDS


class RecyclingTeam(Protocol):
    """The workers that are looked after: those of one generation."""

    plan: ServicePlan
    watcher: ServiceWatcher
    log: Any

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` for as long as the team lives."""

    def refresh(self) -> None:
        """Something about the workers has changed."""

    async def drain_slots(self, slots: Collection[int]) -> None:
        """Drains the workers of `slots` to their end, and leaves their slots empty."""

    async def restart_slots(self, slots: Collection[int]) -> None:
        """Starts the workers of `slots` again. Raises `FailedStartError`."""


class Recycler:
    """Looks after the ready workers of a generation, and replaces those that have to go."""

    def __init__(self, team: RecyclingTeam) -> None:
        self.team = team
        self._monitors: dict[WorkerProcess, HealthMonitor] = {}
        self._waiting: dict[WorkerProcess, str] = {}
        self._proven = asyncio.Event()
        self._busy = False

    def watch(self, process: WorkerProcess) -> None:
        """Looks after a worker from now on, which has just become ready."""
        self._monitors[process] = HealthMonitor(process, self.team.plan, self)
        process.exited.add_done_callback(lambda _: self._forget(process))
        if process.recycle_reason:
            self.request_recycle(process, process.recycle_reason)

    def renew(self) -> None:
        """Goes on as the plan has it now."""
        for monitor in self._monitors.values():
            monitor.renew(self.team.plan)

    def end_probation(self) -> None:
        """From now on workers may be replaced."""
        self._proven.set()

    def end(self) -> None:
        """Looks after nothing any more."""
        for monitor in self._monitors.values():
            monitor.end()
        self._waiting.clear()

    def _forget(self, process: WorkerProcess) -> None:
        self._monitors.pop(process, None)
        self._waiting.pop(process, None)

    # what a monitor notices

    def hung(self, process: WorkerProcess, seconds: float) -> None:
        """Has its stack written to the log (faulthandler, by SIGABRT), then ends it; the watcher
        replaces it as any that died.
        """
        process.kill_reason = "watchdog"
        process.report.failed = f"gave no sign of life for {seconds:g} s"
        self._log(process).error(
            Event.WORKER_HUNG, seconds=seconds, next_action="replaced; its stack follows"
        )
        process.signal_self(signal.SIGABRT)
        self.team.keep(self._make_sure(process))

    async def _make_sure(self, process: WorkerProcess) -> None:
        await asyncio.wait({process.exited}, timeout=ABORT_SECONDS)
        process.signal_group(signal.SIGKILL)

    def unwell(self, process: WorkerProcess, why: str) -> None:
        """Replaces it; until then the service shows it."""
        self.request_recycle(process, "health", error=why)
        self.team.refresh()

    def recovered(self, process: WorkerProcess) -> None:
        """It may stay, unless its replacement is on its way."""
        if self._waiting.get(process) == "health":
            del self._waiting[process]
        self._log(process).info(Event.WORKER_HEALTHY_AGAIN)
        self.team.refresh()

    def over_limit_at_start(self, process: WorkerProcess, **details: Any) -> None:
        """Says so, and leaves it alone: replacing it would never end."""
        reason = "a worker that has just started is over limits.memory"
        self._log(process).warning(Event.WORKER_NOT_RECYCLED, reason=reason, **details)

    def request_recycle(self, process: WorkerProcess, reason: str, **details: Any) -> None:
        """Replaces a worker that is looked after when its turn comes; one that is not ready yet,
        once it is.
        """
        if process not in self._monitors or process in self._waiting:
            return
        if process.stopping or process.exited.done():
            return
        self._waiting[process] = reason
        self._log(process).info(Event.WORKER_TO_BE_RECYCLED, reason=reason, **details)
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
        if self.team.plan.stands_alone:
            self._leaves(process, reason)
            await self.team.drain_slots([process.slot])
            with contextlib.suppress(FailedStartError):  # tried again, as any that dies
                await self.team.restart_slots([process.slot])
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
                self._log(process).warning(Event.WORKER_KEPT, reason=why, again_in=pause)
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
        process.launch.context.counters.restarted(self.team.plan.name, reason)
        process.stop_reason = f"recycled: {reason}"
        self._log(process).info(Event.WORKER_RECYCLED, reason=reason)
