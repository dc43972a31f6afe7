"""One service: its state, its generations, and the reason for its state."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from servd.core.errors import StartError
from servd.core.events import Event
from servd.plan.model import FoundAddress, ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.context import SupervisorContext
from servd.supervisor.exits import WorkerExit
from servd.supervisor.generation import Generation
from servd.supervisor.respawn import RestartHistory
from servd.supervisor.states import BAD_STATES, Observation, State, next_state
from servd.wire.graces import OLDEST_DRAIN_SECONDS

MOST_DRAINING = 2
"""Generations of one service that drain at a time. Those that answer requests hold a third one up:
it cuts a generation short only if it must not wait.
"""

CRASH_LOOP = 3
"""Deaths of one worker in a row that are a crash loop."""

log = structlog.get_logger()


@dataclass(slots=True)
class Milestones:
    """What others wait for at the first start. `settled`: ready, or known not to be for now."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class ManagedService:
    """What runs under one name: the `current` generation, at times an `upcoming` one that is
    starting, and those that are `draining`. `is_held_up`: a reload waits for these.
    """

    def __init__(
        self, plan: ServicePlan, context: SupervisorContext, number: Callable[[], int]
    ) -> None:
        self.plan = plan
        self.context = context
        self.state: State = "waiting"
        self.since = context.workers.now()
        self.error = ""
        self.restarts = 0
        self.overdue = 0
        self.last_exit: WorkerExit | None = None
        self.milestones = Milestones()
        self.bind_now = asyncio.Event()
        self.is_held_up = False
        self.current: Generation | None = None
        self.upcoming: Generation | None = None
        self.draining: list[Generation] = []
        self.starter: asyncio.Task[None] | None = None
        self.log = log.bind(service=plan.name)
        self._number = number
        self._once_ready = False
        self._waits = ""

    def new_generation(self, plan: ServicePlan) -> Generation:
        """A generation of `plan`, with a number that no other one of this name ever had."""
        return Generation(plan, self._number(), self.context, self)

    @property
    def generations(self) -> list[Generation]:
        """Every generation of which something may run."""
        found = (self.current, self.upcoming, *self.draining)
        return [generation for generation in found if generation is not None]

    @property
    def processes(self) -> list[WorkerProcess]:
        """Every worker of every generation, those that drain included."""
        groups = [generation.workers for generation in self.generations]
        return [process for group in groups for process in (*group.processes, *group.leaving)]

    @property
    def generation(self) -> int:
        """The number of the current generation; 0 before the first."""
        return self.current.number if self.current is not None else 0

    @property
    def is_ready(self) -> bool:
        """Whether all workers are ready, or a task is completed."""
        return self.current is not None and self.current.is_ready

    @property
    def serves(self) -> bool:
        """Whether a client would be answered."""
        return self.current is not None and self.current.serves

    def meets(self, condition: str) -> bool:
        """Whether a dependent's condition is met now."""
        current = self.current
        if current is None:
            return False
        if condition == "started":
            return current.workers.has_started or current.completed
        if current.plan.is_task:
            return current.completed
        return self._once_ready and current.workers.ready_count > 0

    def set_state(self, state: State, **reason: Any) -> None:
        """Changes the state (nothing else does); every change is an event."""
        if state == self.state:
            return
        previous, self.state = self.state, state
        self.since = self.context.workers.now()
        (self.log.warning if state in BAD_STATES else self.log.info)(
            Event(f"service {state}"), state=state, previous=previous, **reason
        )

    def learn(self, found: tuple[FoundAddress, ...]) -> None:
        """Records the addresses that its program was found to bind."""
        self.plan = replace(self.plan, found=found)
        if self.current is not None:
            self.current.learn(found)

    def fail(self, error: str) -> None:
        """Marks a start as failed for a reason that a retry does not change."""
        self.error = error
        self.set_state("failed", error=error)
        self.milestones.settled.set()

    async def wait_to_bind(self, error: str, seconds: float) -> None:
        """Waits until its addresses are tried again: after `seconds`, or when `bind_now` is set."""
        self.error = error
        self.set_state("backoff", error=error)
        self.milestones.settled.set()
        self.bind_now.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.bind_now.wait(), max(0.0, seconds))

    def bind(self) -> None:
        """Makes the first generation and binds its sockets. Raises `StartError`."""
        self.current = self.new_generation(self.plan)
        try:
            self.current.bind()
        except StartError:
            self.current.release()
            self.current = None
            raise

    async def start(self) -> None:
        """Starts the workers; returns once all are ready. Raises `StartError` with the reason when
        the service is known to fail; failing workers are restarted even then, as `restart` says.
        """
        generation = self.current
        assert generation is not None
        try:
            await generation.begin()
            if self.plan.workers == 0:
                self.set_state("stopped", reason="workers = 0")
                return
            self.set_state("starting", reason="start")
            self.milestones.started.set()
            await generation.until_ready()
        finally:
            self.milestones.settled.set()

    def retry(self) -> bool:
        """Ends every back-off and retries failed workers; False if a new start is needed."""
        if self.current is not None and self.current.completed:
            return True
        if self.current is None or self.current.is_over:
            return False
        self.current.workers.retry()
        return True

    def succeed_by(self, generation: Generation) -> Generation | None:
        """`promote`s a generation that has become ready."""
        self.milestones.settled.set()
        return self.promote(generation)

    def promote(self, generation: Generation) -> Generation | None:
        """Makes `generation` the current one and returns the previous one."""
        if self.starter is not None:
            self.starter.cancel()
        old, self.current, self.upcoming = self.current, generation, None
        self.plan = generation.plan
        self.error = ""
        self.last_exit = None
        return old

    async def replace(self, old: Generation) -> None:
        """Ends a replaced generation: returns once it accepts no more; its drain continues."""
        self.draining.append(old)
        await self._make_room(old)
        await old.stop_accepting(f"replaced by generation {self.generation}")
        self.refresh()

    @property
    def held_up_by(self) -> Generation | None:
        """The oldest of the draining generations, if as many answer requests as may drain."""
        busy = [generation for generation in self.draining if generation.is_answering]
        return busy[0] if len(busy) >= MOST_DRAINING else None

    async def _make_room(self, new: Generation) -> None:
        """Cuts a draining generation short: one that answers no requests, or else the oldest, once
        it has no time left.
        """
        loop = asyncio.get_running_loop()
        while len(others := [g for g in self.draining if g is not new]) >= MOST_DRAINING:
            oldest = next((g for g in others if not g.is_answering), others[0])
            deadline = loop.time() + OLDEST_DRAIN_SECONDS
            while oldest.requests_in_flight and loop.time() < deadline:
                if self.context.stopping.is_set():
                    return  # everything drains now
                await asyncio.sleep(0.05)  # the pace at which its workers report
            if oldest.workers.leaving:
                self.log.warning(Event.DRAIN_CUT_SHORT, generation=oldest.number)
            await oldest.abort_drain()
            self._drop_ended()

    def _drop_ended(self) -> None:
        self.draining = [generation for generation in self.draining if not generation.is_over]

    async def begin_stop(self, reason: str = "servd is stopping") -> None:
        """Begins to stop every generation; returns once none accepts connections."""
        if self.starter is not None:
            self.starter.cancel()
        self.milestones.settled.set()
        if self.current is not None or self.draining:
            self.set_state("stopping", reason=reason)
        for generation in (self.upcoming, self.current):
            if generation is not None:
                self.draining.append(generation)
        self.upcoming = self.current = None
        self.milestones.started.clear()
        self.milestones.ready.clear()
        self._once_ready = False
        self.error = ""
        await asyncio.gather(*(generation.stop_accepting(reason) for generation in self.draining))

    async def wait_gone(self) -> None:
        """Returns when everything has stopped after `begin_stop`."""
        await asyncio.gather(*(generation.wait_ended() for generation in list(self.draining)))
        self._drop_ended()
        if self.current is None:
            self.set_state("stopped")

    def kill(self) -> None:
        """Kills every worker immediately."""
        for generation in self.generations:
            generation.workers.kill()

    def worker_overdue(self) -> None:
        """A worker did not exit in time."""
        self.overdue += 1

    def lost(self, generation: Generation, exit_: WorkerExit, history: RestartHistory) -> None:
        """Logs the unexpected exit of a worker, and what happens next."""
        pause = max(0.0, history.until - asyncio.get_running_loop().time())
        next_action = {
            "gave_up": "not restarted (restart.give_up_after reached)",
            "policy": "not restarted",
            "exited": "not restarted",
        }.get(history.over, f"restarting in {pause:.1f} s" if pause else "restarting")
        if generation is self.upcoming:
            next_action = "new generation abandoned"
        else:
            self.last_exit = exit_
            self.error = f"worker {exit_.worker} {exit_.reason}"
            self.restarts += not history.over
            if history.failures == CRASH_LOOP:
                self.log.error(
                    Event.CRASH_LOOP,
                    worker=exit_.worker,
                    failures=history.failures,
                    reason=exit_.reason,
                    last_lines=list(exit_.last_lines),
                )
        self.log.warning(
            Event.WORKER_DIED,
            worker=exit_.worker,
            pid=exit_.pid,
            generation=generation.number,
            exit_status=exit_.status,
            reason=exit_.reason,
            next_action=next_action,
        )

    @property
    def crash_loop(self) -> bool:
        """Whether a worker keeps failing."""
        return self.current is not None and self.current.workers.failed_lately(CRASH_LOOP)

    def refresh(self) -> None:
        """Moves to the state that follows from the workers."""
        self._drop_ended()
        self._show_waits()
        generation = self.current
        if generation is None or not generation.workers.has_begun:
            return
        if generation.workers.unwell:
            self.error = generation.workers.unwell
        seen = self._observe(generation)
        state = next_state(self.state, seen)
        if state == "ready":
            self._well(state, workers=seen.ready)
        elif state == "completed":
            self._well(state)
        else:
            self.set_state(state, **self._details(state, seen, generation))
        if not self.meets("ready"):
            self.milestones.ready.clear()

    def _show_waits(self) -> None:
        """Shows why a worker is not started yet, as long as that is so."""
        starting = (g.waits for g in (self.upcoming, self.current) if g is not None)
        waits = next(filter(None, starting), "")
        if waits or (self._waits and self.error == self._waits):
            self.error = waits
        self._waits = waits

    def _observe(self, generation: Generation) -> Observation:
        workers = generation.workers
        return Observation(
            wanted=workers.wanted,
            ready=workers.ready_count,
            is_ready=generation.is_ready,
            completed=generation.completed,
            rolls=self._rolls(generation),
            once_ready=self._once_ready,
            unwell=bool(workers.unwell),
            pausing=workers.pausing,
            given_up=workers.given_up,
            exited=workers.exited,
        )

    def _details(self, state: State, seen: Observation, generation: Generation) -> dict[str, Any]:
        if state == "rolling":
            more = "more workers are" if generation.grows else "a new generation is"
            return {"reason": f"{more} starting"}
        if state == "stopped":
            return {"reason": "workers = 0"}
        if state == "exited":
            return {"reason": self.error}
        if state == "starting":
            return {"reason": self.error or "start"}
        if state == "degraded":
            return {"ready": seen.ready, "desired": seen.wanted, "error": self.error}
        return {"error": self.error}

    def _rolls(self, generation: Generation) -> bool:
        """Whether a change is in progress, with no fewer workers than wanted."""
        if generation.grows:
            return True
        if self.upcoming is None or not generation.serves:
            return False
        ready = generation.workers.ready_count + self.upcoming.workers.ready_count
        return ready >= generation.workers.wanted

    def complete(self) -> None:
        """Counts the task as completed, without a run here."""
        self.milestones.settled.set()
        self._well("completed")

    def _well(self, state: State, **details: Any) -> None:
        self.error = ""
        self.set_state(state, **details)
        self._once_ready = True
        self.milestones.started.set()
        self.milestones.ready.set()
