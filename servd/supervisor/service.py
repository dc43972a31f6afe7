"""One service: its state, its generations, and why it is not what it should be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from servd.core.errors import StartError
from servd.plan.model import ServicePlan
from servd.supervisor.context import SupervisorContext
from servd.supervisor.exits import WorkerExit
from servd.supervisor.generation import Generation
from servd.supervisor.respawn import RestartHistory

State = Literal[
    "waiting", "starting", "ready", "rolling", "degraded", "backoff",
    "stopping", "stopped", "failed", "completed",
]  # fmt: skip

MOST_DRAINING = 2
"""Generations of one service that may drain at a time; the oldest gives way to a third."""

CRASH_LOOP = 3
"""Deaths of one worker in a row from which on it is called a crash loop."""

CUT_PATIENCE = 10.0
"""Seconds that the oldest still gets to answer requests in flight before it is cut."""

log = structlog.get_logger()


@dataclass(slots=True)
class Milestones:
    """What others wait for at the first start. `settled`: ready, or known not to be for now."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class ManagedService:
    """What runs under one name: a current generation, at times one that is on its way in
    (`upcoming`), and those on their way out (`draining`).
    """

    def __init__(
        self, plan: ServicePlan, engine: SupervisorContext, number: Callable[[], int]
    ) -> None:
        self.plan = plan
        self.engine = engine
        self.state: State = "waiting"
        self.error = ""
        self.restarts = 0
        self.overdue = 0
        self.last_exit: WorkerExit | None = None
        self.milestones = Milestones()
        self.current: Generation | None = None
        self.upcoming: Generation | None = None
        self.draining: list[Generation] = []
        self.starter: asyncio.Task[None] | None = None
        self.log = log.bind(service=plan.name)
        self._number = number
        self._once_ready = False

    def new_generation(self, plan: ServicePlan) -> Generation:
        """A generation of `plan`, with a number that no other of this name ever had."""
        return Generation(plan, self._number(), self.engine, self)

    @property
    def generation(self) -> int:
        """The number of the current generation; 0 before the first."""
        return self.current.number if self.current is not None else 0

    @property
    def is_ready(self) -> bool:
        """Whether all is there that should be."""
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
            return bool(current.processes) or current.completed
        if current.plan.is_task:
            return current.completed
        return self._once_ready and current.ready_count > 0

    def set_state(self, state: State, **why: Any) -> None:
        """The one place where the state changes; every change is an event."""
        if state == self.state:
            return
        previous, self.state = self.state, state
        bad = state in ("failed", "backoff", "degraded")
        (self.log.warning if bad else self.log.info)(
            f"service {state}", state=state, previous=previous, **why
        )

    def fail(self, error: str) -> None:
        """The service cannot start, for a reason that trying again does not change."""
        self.error = error
        self.set_state("failed", error=error)
        self.milestones.settled.set()

    def bind(self) -> None:
        """Makes the first generation and takes its sockets. Raises `StartError`."""
        self.current = self.new_generation(self.plan)
        try:
            self.current.bind()
        except StartError:
            self.current.release()
            self.current = None
            raise

    async def start(self) -> None:
        """Starts the workers and returns once all are ready, or the service is known to fail.

        Raises `StartError` with what went wrong; workers that keep dying are tried again with
        back-off even after that, as `restart` says.
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
        """Clears pauses and givings-up. Returns False where it has to be started from scratch."""
        if self.current is not None and self.current.completed:
            return True
        if self.current is None or self.current.watcher is None or self.current.has_ended:
            return False
        if not self.is_ready and self.current.watcher.history:
            self.current.watcher.retry()
        return True

    def promote(self, generation: Generation) -> Generation | None:
        """Makes `generation` the current one and returns the one that was."""
        if self.starter is not None:
            self.starter.cancel()
        old, self.current, self.upcoming = self.current, generation, None
        self.plan = generation.plan
        self.error = ""
        self.last_exit = None
        self.milestones.settled.set()
        return old

    async def retire(self, generation: Generation) -> None:
        """Ends a generation: returns once it accepts no more; it drains in the background."""
        self.draining.append(generation)
        await self._make_room(generation)
        await generation.retire(f"replaced by generation {self.generation}")
        self.refresh()

    async def _make_room(self, coming: Generation) -> None:
        """At most two generations drain: the oldest is cut, once it answers no request any more or
        has had a while for it.
        """
        loop = asyncio.get_running_loop()
        while len(others := [g for g in self.draining if g is not coming]) >= MOST_DRAINING:
            oldest = others[0]
            deadline = loop.time() + CUT_PATIENCE
            while oldest.requests_in_flight and loop.time() < deadline:
                if self.engine.stopping.is_set():
                    return  # everything drains now
                await asyncio.sleep(0.05)  # the pace at which its workers report
            if oldest.leaving:
                self.log.warning("drain cut short", generation=oldest.number)
            await oldest.cut()
            self._drop_ended()

    def _drop_ended(self) -> None:
        self.draining = [generation for generation in self.draining if not generation.over]

    async def leave(self, why: str = "servd stops") -> None:
        """Begins the end of every generation: returns once nothing accepts any more."""
        if self.starter is not None:
            self.starter.cancel()
        self.milestones.settled.set()
        if self.current is not None or self.draining:
            self.set_state("stopping", reason=why)
        for generation in (self.upcoming, self.current):
            if generation is not None:
                self.draining.append(generation)
        self.upcoming = self.current = None
        self.milestones.started.clear()
        self.milestones.ready.clear()
        self._once_ready = False
        self.error = ""
        await asyncio.gather(*(generation.retire(why) for generation in self.draining))

    async def gone(self) -> None:
        """Returns when nothing is left after `leave`."""
        await asyncio.gather(*(generation.ended() for generation in list(self.draining)))
        self._drop_ended()
        if self.current is None:
            self.set_state("stopped")

    def kill(self) -> None:
        """Ends every worker at once."""
        for generation in (self.current, self.upcoming, *self.draining):
            if generation is not None:
                generation.kill()

    def killed(self) -> None:
        """A worker did not end in time."""
        self.overdue += 1

    def lost(self, generation: Generation, exit_: WorkerExit, history: RestartHistory) -> None:
        """A worker ended without being asked to: says so, and what happens next."""
        pause = max(0.0, history.until - asyncio.get_running_loop().time())
        what = {"gave_up": "given up", "policy": "not restarted"}.get(
            history.over, f"restarting in {pause:.1f} s" if pause else "restarting"
        )
        if generation is self.upcoming:
            what = "the new generation is given up"
        else:
            self.last_exit = exit_
            self.error = f"worker {exit_.worker} {exit_.reason}"
            self.restarts += not history.over
            if history.failures == CRASH_LOOP:
                self._says_it_loops(exit_, history)
        self.log.warning(
            "worker died",
            worker=exit_.worker,
            pid=exit_.pid,
            generation=generation.number,
            exit_status=exit_.status,
            reason=exit_.reason,
            then=what,
        )

    def _says_it_loops(self, exit_: WorkerExit, history: RestartHistory) -> None:
        self.log.error(
            "crash loop",
            worker=exit_.worker,
            failures=history.failures,
            reason=exit_.reason,
            last_lines=list(exit_.last_lines),
        )

    @property
    def crash_loop(self) -> bool:
        """Whether a worker dies again and again."""
        watcher = self.current.watcher if self.current is not None else None
        return watcher is not None and watcher.failed_lately(CRASH_LOOP)

    def refresh(self) -> None:
        """The state that follows from the workers as they are."""
        self._drop_ended()
        generation = self.current
        if generation is None or generation.watcher is None:
            return
        ready, wanted = generation.ready_count, generation.wanted
        if generation.unwell:
            self.error = generation.unwell
        if self._rolls(generation):
            more = "more workers" if generation.grows else "a new generation"
            self.set_state("rolling", reason=f"{more} on the way")
        elif generation.completed:
            self._well("completed")
        elif wanted == 0:
            self.set_state("stopped", reason="workers = 0")
        elif generation.is_ready:
            self._well("ready", workers=ready)
        elif generation.given_up and ready == 0:
            self.set_state("failed", error=self.error)
        elif self._once_ready and (ready or generation.unwell):
            self.set_state("degraded", ready=ready, desired=wanted, error=self.error)
        elif generation.pausing and ready == 0:
            self.set_state("backoff", error=self.error)
        elif not ready and self.state != "backoff":
            self.set_state("starting", reason=self.error or "start")
        if not self.meets("ready"):
            self.milestones.ready.clear()

    def _rolls(self, generation: Generation) -> bool:
        """Whether a change is under way, with no fewer workers than there should be meanwhile."""
        if generation.grows:
            return True
        if self.upcoming is None or not generation.serves:
            return False
        return generation.ready_count + self.upcoming.ready_count >= generation.wanted

    def complete(self) -> None:
        """The task is taken for completed, without having run here."""
        self.milestones.settled.set()
        self._well("completed")

    def _well(self, state: State, **details: Any) -> None:
        self.error = ""
        self.set_state(state, **details)
        self._once_ready = True
        self.milestones.started.set()
        self.milestones.ready.set()
