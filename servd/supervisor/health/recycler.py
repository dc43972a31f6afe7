"""Replaces running workers: hung ones immediately, others one at a time, replacement first."""

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
    """The workers of one generation, as the recycler needs them."""

    plan: ServicePlan
    watcher: ServiceWatcher
    log: Any

    def keep(self, work: Coroutine[Any, Any, None]) -> None: ...
    def refresh(self) -> None: ...
    async def drain_slots(self, slots: Collection[int]) -> None: ...
    async def restart_slots(self, slots: Collection[int]) -> None: ...


class Recycler:
    """Looks after the ready workers of a generation, and replaces those that have to leave."""

    def __init__(self, team: RecyclingTeam) -> None:
        self.team = team
        self._monitors: dict[WorkerProcess, HealthMonitor] = {}
        self._waiting: dict[WorkerProcess, str] = {}
        self._not_ready: set[WorkerProcess] = set()
        self._proven = asyncio.Event()
        self._busy = False

    def watch(self, process: WorkerProcess) -> None:
        """Looks after a worker that has just become ready."""
        self._monitors[process] = HealthMonitor(process, self.team.plan, self)
        process.exited.add_done_callback(lambda _: self._forget(process))
        if process.recycle_reason:
            self.request_recycle(process, process.recycle_reason)

    def renew(self) -> None:
        """Continues by the current plan."""
        for monitor in self._monitors.values():
            monitor.renew(self.team.plan)

    def end_probation(self) -> None:
        """Allows replacements from now on."""
        self._proven.set()

    def end(self) -> None:
        """Stops looking after workers."""
        for monitor in self._monitors.values():
            monitor.end()
        self._waiting.clear()

    def _forget(self, process: WorkerProcess) -> None:
        self._monitors.pop(process, None)
        self._waiting.pop(process, None)
        self._not_ready.discard(process)

    # what a monitor notices

    def hung(self, process: WorkerProcess, seconds: float) -> None:
        """Makes it write its stack to the log (faulthandler, by SIGABRT), then kills it; the
        watcher replaces it like any dead worker.
        """
        process.kill_reason = "watchdog"
        process.report.failed = f"was unresponsive for {seconds:g} s"
        self._log(process).error(
            Event.WORKER_HUNG, seconds=seconds, next_action="replaced; its stack trace follows"
        )
        process.signal_self(signal.SIGABRT)
        self.team.keep(self._kill_after_abort(process))

    async def _kill_after_abort(self, process: WorkerProcess) -> None:
        await asyncio.wait({process.exited}, timeout=ABORT_SECONDS)
        process.signal_group(signal.SIGKILL)

    def unwell(self, process: WorkerProcess, reason: str) -> None:
        """Replaces it, unless it only is not ready; the service shows the reason until then."""
        plan = self.team.plan.health
        if plan is None or not plan.only_readiness:
            self.request_recycle(process, "health", error=reason)
        elif process not in self._not_ready:
            self._not_ready.add(process)
            self._log(process).warning(Event.WORKER_NOT_READY, error=reason)
        self.team.refresh()

    def recovered(self, process: WorkerProcess) -> None:
        """Keeps it, unless its replacement is starting."""
        self._not_ready.discard(process)
        if self._waiting.get(process) == "health":
            del self._waiting[process]
        self._log(process).info(Event.WORKER_HEALTHY_AGAIN)
        self.team.refresh()

    def over_limit_at_start(self, process: WorkerProcess, **details: Any) -> None:
        """Logs it and keeps the worker: every replacement would exceed the limit too."""
        reason = "a new worker already exceeds limits.memory"
        self._log(process).warning(Event.WORKER_NOT_RECYCLED, reason=reason, **details)

    def request_recycle(self, process: WorkerProcess, reason: str, **details: Any) -> None:
        """Replaces a worker in its turn; one that is not ready yet, once it is."""
        if process not in self._monitors or process in self._waiting or self._is_leaving(process):
            return
        self._waiting[process] = reason
        self._log(process).info(Event.WORKER_TO_BE_RECYCLED, reason=reason, **details)
        if not self._busy:
            self._busy = True
            self.team.keep(self._work())

    def _log(self, process: WorkerProcess) -> Any:
        return self.team.log.bind(worker=process.slot, pid=process.pid)

    async def _work(self) -> None:
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
        if self.team.plan.never_overlaps:
            self._leaves(process, reason)
            await self.team.drain_slots([process.slot])
            with contextlib.suppress(FailedStartError):  # tried again like any that dies
                await self.team.restart_slots([process.slot])
            return
        loop = asyncio.get_running_loop()
        while process in self._waiting and not self._is_leaving(process) and watcher.is_active():
            if await self._start_replacement(watcher, process):
                self._leaves(process, reason)
                watcher.attempts.pop(process.slot, None)
                await watcher.kill_process(process)
                return
            attempts = watcher.attempts.get(process.slot)
            pause = attempts.until - loop.time() if attempts is not None else 0.0
            if attempts is not None and attempts.over:
                pause = self.team.plan.restart.backoff_max
                reason = "its replacement failed to start"
                self._log(process).warning(Event.WORKER_KEPT, reason=reason, retry_in=pause)
            await asyncio.wait({process.exited}, timeout=max(0.0, pause))

    @staticmethod
    def _is_leaving(process: WorkerProcess) -> bool:
        return process.stopping or process.exited.done()

    async def _start_replacement(self, watcher: ServiceWatcher, process: WorkerProcess) -> bool:
        """Starts a worker in the same slot; returns whether it became ready."""
        replacement = watcher.start_beside(process)
        if replacement is None:
            return False
        over: set[asyncio.Future[Any]] = {replacement.ready, replacement.exited}
        await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
        return replacement.was_ready and not process.exited.done()

    def _leaves(self, process: WorkerProcess, reason: str) -> None:
        process.launch.context.counters.restarted(self.team.plan.name, reason)
        process.stop_reason = f"recycled: {reason}"
        self._log(process).info(Event.WORKER_RECYCLED, reason=reason)
