"""Looks after one ready worker: its signs of life, health, age and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from servd.core.processes import is_ending
from servd.plan.model import HealthPlan, ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.health import memory
from servd.supervisor.health.engine import EngineWatch
from servd.supervisor.health.probe import why_unwell
from servd.supervisor.health.progress import WorkProgress, work_of
from servd.supervisor.health.readiness import was_held_up

MEMORY_SECONDS = 1.0
"""Interval of measuring the memory of a worker with a limit."""

_PAUSE_FACTOR = 50
"""The pause after a slow measurement is at least this many times as long."""


class HealthListener(Protocol):
    """Acts on what a monitor notices: a worker that is `hung` (no sign of life for `seconds`),
    `stuck` (none of its requests goes on), without the process that did its work (`lost_engine`),
    `unwell` (its probes fail in a row), `recovered`,
    `over_limit_at_start` (as its replacement would be), or has reached a limit (`request_recycle`).
    """

    def hung(self, process: WorkerProcess, seconds: float) -> None: ...
    def stuck(self, process: WorkerProcess, seconds: float) -> None: ...
    def lost_engine(self, process: WorkerProcess, reason: str) -> None: ...
    def unwell(self, process: WorkerProcess, reason: str) -> None: ...
    def recovered(self, process: WorkerProcess) -> None: ...
    def over_limit_at_start(self, process: WorkerProcess, key: str, **details: Any) -> None: ...
    def request_recycle(self, process: WorkerProcess, reason: str, **details: Any) -> None: ...


class HealthMonitor:
    """Watches one worker until it has ended."""

    def __init__(self, process: WorkerProcess, plan: ServicePlan, listener: HealthListener) -> None:
        self.process = process
        self._listener = listener
        self.since = asyncio.get_running_loop().time()
        self._tasks: list[asyncio.Task[None]] = []
        self._has_lost_engine = False
        self._engines = EngineWatch(process.pid)
        self.renew(plan)
        process.exited.add_done_callback(lambda _: self.end())

    def renew(self, plan: ServicePlan) -> None:
        """Continues by `plan`."""
        self.end()
        watchdog = self._watchdog(plan)
        if watchdog is not None:
            self._begin(self._signs_of_life(watchdog))
        if plan.health is not None:
            self._begin(self._health(plan.health))
        else:
            self._passed()
        if plan.definition.watchdog_tree and plan.gpus:
            self._begin(self._engine())
        if plan.limits.max_age is not None:
            self._begin(self._age(plan.limits.max_age))
        if plan.limits.memory is not None:
            self._begin(self._memory(plan.limits.memory))
        if plan.limits.gpu_memory is not None:
            self._begin(self._gpu_memory(plan.limits.gpu_memory))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    def end(self) -> None:
        """Stops watching."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def _watchdog(self, plan: ServicePlan) -> float | None:
        """Allowed seconds of silence. A command cannot be given a new value: it keeps at least the
        one that it was started with.
        """
        if plan.app is not None:
            return plan.watchdog
        told = self.process.launch.plan.watchdog
        return max(told, plan.watchdog) if told is not None and plan.watchdog is not None else None

    async def _signs_of_life(self, seconds: float) -> None:
        """Armed from the start for servd's worker, which gives signs before it is ready; for a
        command from its first sign on.
        """
        process, loop = self.process, asyncio.get_running_loop()
        if process.last_sign is None:
            await asyncio.wait({process.signed})
        else:
            process.last_sign = loop.time()
        while not process.stopping:
            last = process.last_sign
            assert last is not None
            due = last + seconds
            await asyncio.sleep(due - loop.time())
            late = loop.time() - due
            process.read_notifications()
            if process.stopping:  # its drain has its own deadline
                return
            if process.last_sign != last:
                continue
            if was_held_up(late, seconds):
                process.last_sign = loop.time()
                continue
            self._listener.hung(process, seconds)
            return

    async def _health(self, plan: HealthPlan) -> None:
        process, failures, loop = self.process, 0, asyncio.get_running_loop()
        watched = _WatchedWork(process, plan) if plan.trusts else None
        while not process.stopping:
            due = loop.time() + plan.interval
            await asyncio.sleep(plan.interval)
            began = loop.time()
            if watched is not None:
                is_busy = watched.look(late=began - due)
                if seconds := watched.stuck_for():
                    self._listener.stuck(process, seconds)
                    return
                if is_busy:
                    failures = self._passed()
                    continue
            try:
                reason = await why_unwell(process, plan)
                if reason and is_ending(process.pid):
                    return  # its end is noticed in a moment
            except OSError:  # the daemon lacks resources: no worker is blamed for that
                continue
            if was_held_up(loop.time() - began - plan.timeout, plan.timeout):
                if watched is not None:
                    watched.goes_on()
                if reason:
                    continue  # nor for the daemon's own delay
            if watched is not None and watched.excuses(reason):
                reason = ""
            failures = failures + 1 if reason else self._passed()
            if failures >= plan.failures and not process.stopping:
                process.unwell = reason
                self._listener.unwell(process, reason)

    def _passed(self) -> int:
        """It is well: it has failed no more."""
        if self.process.unwell and not self._has_lost_engine:
            self._well_again()
        return 0

    def _well_again(self) -> None:
        self.process.unwell = ""
        self._listener.recovered(self.process)

    async def _age(self, longest: float) -> None:
        ready_for = asyncio.get_running_loop().time() - self.since
        await asyncio.sleep(max(0.0, longest - ready_for))
        lived = round(self.process.lived, 1)
        self._listener.request_recycle(self.process, "max_age", seconds=lived)

    async def _memory(self, limit: int) -> None:
        loop = asyncio.get_running_loop()
        pause = MEMORY_SECONDS
        if used := await asyncio.to_thread(memory.over, self.process.pid, limit):
            self._listener.over_limit_at_start(self.process, "memory", bytes=used, limit=limit)
            return
        while not used:
            await asyncio.sleep(pause)
            before = loop.time()
            used = await asyncio.to_thread(memory.over, self.process.pid, limit)
            pause = max(MEMORY_SECONDS, _PAUSE_FACTOR * (loop.time() - before))
        self._listener.request_recycle(self.process, "memory", bytes=used, limit=limit)

    async def _engine(self) -> None:
        process, loop = self.process, asyncio.get_running_loop()
        watch = self._engines  # it stays: what held memory at the beginning is known only then
        watch.unknown()
        async for held in process.launch.context.gpus.holders(process):
            if process.stopping:
                return
            if held is None:
                watch.unknown()
            elif reason := watch.look(held, loop.time()):
                self._has_lost_engine = True
                process.unwell = reason
                self._listener.lost_engine(process, reason)
                return

    async def _gpu_memory(self, limit: int) -> None:
        """A worker that is over it at once stays: each that replaces it would be over it too."""
        process, room = self.process, self.process.launch.context.gpus
        first = True
        async for held in room.figures(process):
            if not held:
                continue
            gpu, used = max(held.items(), key=lambda item: item[1])
            details = {"gpu": gpu, "bytes": used, "limit": limit}
            if used > limit and first:
                self._listener.over_limit_at_start(process, "gpu_memory", **details)
                return
            if used > limit:
                self._listener.request_recycle(process, "gpu_memory", **details)
                return
            first = False


class _WatchedWork:
    """The progress of a worker whose requests tell more about it than probes."""

    def __init__(self, process: WorkerProcess, plan: HealthPlan) -> None:
        self._process, self._plan = process, plan
        self._progress = WorkProgress(plan.interval * plan.failures)
        self._now = asyncio.get_running_loop().time
        self.look(late=0.0)

    def look(self, late: float) -> bool:
        """Returns whether requests went well since the last look, which was `late`."""
        counters = self._process.counters
        if counters is None:  # it has ended
            return False
        if was_held_up(late, self._plan.interval):
            self.goes_on()
        return self._progress.look(work_of(counters), self._now())

    def goes_on(self) -> None:
        """It has shown otherwise that it works, or nobody could look for a while."""
        self._progress.goes_on(self._now())

    def stuck_for(self) -> float:
        """Returns the seconds for which requests have made no progress; 0 if they have."""
        return self._progress.stuck_for(self._now())

    def excuses(self, reason: str) -> bool:
        """Whether a probe that failed for `reason` failed beside requests that went well. One that
        did the app's own work shows that the app is not stuck.
        """
        if not reason:
            if self._plan.request is not None:
                self.goes_on()
            return False
        return self.look(late=0.0)
