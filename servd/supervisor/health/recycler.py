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
from servd.supervisor.worker_commands import abort_drain
from servd.wire.graces import ABORT_SECONDS

_TURN_SECONDS = 0.2
"""Interval of looking whether other workers on the same GPU have started."""

_USELESS = ("cuda", "unwell", "engine", "gpu_failed")
"""A worker that is to be replaced for one of these answers no request well any more: another one
need not be ready first, and its GPU may have no room for both.
"""

_NO_MEMORY = "gpu_oom"
"""Its GPU may have no room for a second one: then it ends first, although it answers some."""

_USELESS_DRAIN_SECONDS = 10.0
"""Its requests may wait for what does not come: no other one waits longer for them."""


def _rank(reason: str) -> int:
    """A reason takes the place of one of a lower rank: that one may pass, or replaces later."""
    if reason in _USELESS:
        return 3
    return {"": -1, "health": 0, _NO_MEMORY: 2}.get(reason, 1)


def _watched(plan: ServicePlan) -> tuple[object, ...]:
    return plan.health, plan.watchdog, plan.definition.watchdog_tree


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
            self.asked(process)

    def asked(self, process: WorkerProcess) -> None:
        """Replaces a worker that asks for it."""
        details = {"error": process.recycle_error} if process.recycle_error else {}
        self.request_recycle(process, process.recycle_reason, **details)

    def renew(self, before: ServicePlan) -> bool:
        """Continues by the current plan. Returns whether that differs in what workers are looked
        after by.
        """
        plan = self.team.plan
        if _watched(plan) == _watched(before):
            return False
        for monitor in self._monitors.values():
            monitor.renew(plan)
        return True

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
        process.report.failed = f"was unresponsive for {seconds:g} s"
        self._abort(process, "watchdog", seconds=seconds)

    def stuck(self, process: WorkerProcess, seconds: float) -> None:
        """Ends it as one that is hung: its requests would not end either."""
        process.report.failed = f"made no progress with its requests for {seconds:.3g} s"
        self._abort(process, "no_progress", reason="no progress", seconds=round(seconds, 1))

    def lost_engine(self, process: WorkerProcess, reason: str) -> None:
        """Replaces a worker whose front alone is left."""
        self.request_recycle(process, "engine", error=reason)
        self.team.refresh()

    def _abort(self, process: WorkerProcess, kill_reason: str, **details: Any) -> None:
        process.kill_reason = kill_reason
        self._log(process).error(
            Event.WORKER_HUNG, **details, next_action="replaced; its stack trace follows"
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

    def over_limit_at_start(self, process: WorkerProcess, key: str, **details: Any) -> None:
        """Logs it and keeps the worker: every replacement would exceed the limit too."""
        reason = f"a new worker already exceeds limits.{key}"
        self._log(process).warning(Event.WORKER_NOT_RECYCLED, reason=reason, **details)

    def request_recycle(self, process: WorkerProcess, reason: str, **details: Any) -> None:
        """Replaces a worker in its turn; one that is not ready yet, once it is."""
        if process not in self._monitors or self._is_leaving(process):
            return
        if _rank(reason) <= _rank(self._waiting.get(process, "")):
            return
        self._waiting[process] = reason
        self._log(process).info(Event.WORKER_TO_BE_RECYCLED, reason=reason, **details)
        if reason in _USELESS:
            self.team.keep(self._end_first(process, reason))
        elif not self._busy:
            self._busy = True
            self.team.keep(self._work())

    def _log(self, process: WorkerProcess) -> Any:
        return self.team.log.bind(worker=process.slot, pid=process.pid)

    async def _work(self) -> None:
        try:
            await self._proven.wait()
            while (process := self._next()) is not None:
                await self._replace(process)
                if self._waits(process):
                    del self._waiting[process]
        finally:
            self._busy = False

    def _next(self) -> WorkerProcess | None:
        return next(filter(self._waits, self._waiting), None)

    def _waits(self, process: WorkerProcess) -> bool:
        """Whether a worker waits for its turn. A useless one waits for none."""
        return self._waiting.get(process, _USELESS[0]) not in _USELESS

    async def _replace(self, process: WorkerProcess) -> None:
        watcher = self.team.watcher
        loop = asyncio.get_running_loop()
        has_failed = False
        while self._goes_on(process):
            wait = watcher.gate.look(watcher.launch, process.slot)
            has_no_room = wait is not None and not wait.is_turn
            reason = self._waiting[process]
            lacks = has_failed and reason == _NO_MEMORY
            if self.team.plan.never_overlaps or has_no_room or lacks:
                await self._end_first(process, reason)
                return
            if wait is not None:
                await asyncio.wait({process.exited}, timeout=_TURN_SECONDS)
                continue
            if await self._start_replacement(watcher, process):
                if not (self._is_leaving(process) or self._waiting.get(process) in _USELESS):
                    self._leaves(process, self._waiting.get(process, reason))
                    watcher.attempts.pop(process.slot, None)
                    await watcher.kill_process(process)
                return
            has_failed = True
            if self._waiting.get(process) == _NO_MEMORY:
                continue
            attempts = watcher.attempts.get(process.slot)
            pause = attempts.until - loop.time() if attempts is not None else 0.0
            if attempts is not None and attempts.over:
                pause = self.team.plan.restart.backoff_max
                kept = "its replacement failed to start"
                self._log(process).warning(Event.WORKER_KEPT, reason=kept, retry_in=pause)
            await asyncio.wait({process.exited}, timeout=max(0.0, pause))

    def _goes_on(self, process: WorkerProcess) -> bool:
        """Whether the replacement of a worker that waits for it still has a sense."""
        active = self.team.watcher.is_active()
        return active and self._waits(process) and not self._is_leaving(process)

    async def _end_first(self, process: WorkerProcess, reason: str) -> None:
        """Replaces a worker next to which no other can run, or that is of no use."""
        if self._is_leaving(process):
            return
        self._leaves(process, reason)
        if reason in _USELESS:
            self.team.keep(self._hurry(process))
        if self._has_successor(process) and reason != "gpu_failed":
            await self.team.watcher.kill_process(process)
            return
        await self.team.drain_slots([process.slot])
        if reason == "gpu_failed":  # no other GPU may be there for long
            self.team.keep(self._restart(process.slot))
        else:
            await self._restart(process.slot)

    async def _restart(self, slot: int) -> None:
        with contextlib.suppress(FailedStartError):  # tried again like any that dies
            await self.team.restart_slots([slot])

    def _has_successor(self, process: WorkerProcess) -> bool:
        others = (each for each in self.team.watcher.staying if each is not process)
        return any(each.slot == process.slot for each in others)

    @staticmethod
    async def _hurry(process: WorkerProcess) -> None:
        await asyncio.wait({process.exited}, timeout=_USELESS_DRAIN_SECONDS)
        if not process.exited.done():
            await abort_drain(process)

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
