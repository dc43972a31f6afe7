"""The workers of one generation while it runs, and while it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from servd.core.events import Event
from servd.plan.model import ServicePlan
from servd.supervisor.circus.launch import Launch
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.circus.watcher import ServiceWatcher
from servd.supervisor.context import SupervisorContext
from servd.supervisor.exits import FailedStartError, WorkerExit
from servd.supervisor.health.readiness import NotReadyError, ready_or_over
from servd.supervisor.health.recycler import Recycler
from servd.supervisor.health.warmup import warm_up
from servd.supervisor.io.channel import UnansweredError
from servd.supervisor.respawn import RestartHistory
from servd.supervisor.worker_commands import abort_drain, show_stacks, update
from servd.supervisor.worker_events import WorkerEventRecorder
from servd.supervisor.worker_record import WorkerRecord


class GroupOwner(Protocol):
    """The generation that a group belongs to."""

    log: Any
    record: WorkerRecord

    def refresh(self) -> None: ...
    def lost(self, exit_: WorkerExit, history: RestartHistory) -> None: ...
    def overdue(self) -> None: ...


class WorkerGroup:
    """The workers of a generation, from the start of the first to the end of the last. On
    `probation` a slot is filled once, and a death ends the generation. `growing`: starting workers
    of a scale-up.
    """

    has_begun = True

    def __init__(
        self, launch: Launch, owner: GroupOwner, context: SupervisorContext, *, probation: bool
    ) -> None:
        self.plan = launch.plan
        self.record = owner.record
        self.growing = 0
        self.accepts = launch.accept
        self.log = owner.log
        self.watcher = ServiceWatcher(launch, WorkerEventRecorder(self), context.start_limiter)
        self._owner = owner
        self._context = context
        self._recycler = Recycler(self)
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None
        if probation:
            self.watcher.probation = set(range(launch.plan.workers))
        else:
            self._recycler.end_probation()

    async def start(self, slots: int | None = None) -> None:
        """Starts the workers (of the first `slots`) without waiting for them."""
        if slots is not None:
            self.watcher.numprocesses = slots
        self._context.arbiter.add(self.watcher)
        await self.watcher.begin()

    # state

    @property
    def launch(self) -> Launch:
        """How workers are started."""
        return self.watcher.launch

    @property
    def processes(self) -> Sequence[WorkerProcess]:
        """The workers that are not leaving, by slot."""
        return sorted(self.watcher.staying, key=lambda process: process.slot)

    @property
    def has_started(self) -> bool:
        """Whether a worker runs."""
        return bool(self.watcher.staying)

    @property
    def serves(self) -> bool:
        """Whether a client would be answered."""
        return self.accepts and any(p.was_ready for p in self.watcher.staying)

    @property
    def leaving(self) -> Sequence[WorkerProcess]:
        """The workers that drain."""
        return [p for p in self.watcher.processes.values() if p.stopping]

    @property
    def ready_count(self) -> int:
        """Slots with a ready, healthy worker. (During a recycle a slot briefly has two.)"""
        return len({p.slot for p in self.watcher.staying if p.was_ready and not p.unwell})

    @property
    def unwell(self) -> str:
        """The reason why a running worker fails its probes; "" if none does."""
        return next((f"worker {p.slot}: {p.unwell}" for p in self.processes if p.unwell), "")

    @property
    def wanted(self) -> int:
        """The wanted number of workers."""
        return self.watcher.numprocesses

    @property
    def is_ready(self) -> bool:
        """Whether all wanted workers are ready, or a task is completed."""
        if self.plan.is_task:
            return self.record.completed or not self.plan.workers
        return self.ready_count >= self.wanted

    @property
    def pausing(self) -> bool:
        """Whether a worker waits in back-off."""
        return self.watcher.is_pausing

    @property
    def exited(self) -> bool:
        """Whether all workers have ended by themselves, as `restart.policy` wants it."""
        return self.watcher.has_exited

    @property
    def given_up(self) -> bool:
        """Whether a worker is missing that will not be started again."""
        return self.watcher.gives_up(range(self.wanted))

    def failed_lately(self, times: int) -> bool:
        """Whether a slot has had `times` deaths in a row, and no proven worker since."""
        return self.watcher.failed_lately(times)

    @property
    def has_ended(self) -> bool:
        """Whether every worker has exited as requested."""
        return self._ending is not None and self._ending.done()

    # becoming ready

    def expect(self, process: WorkerProcess) -> None:
        """Waits for the readiness of a new worker, in the background."""
        self.keep(self._await_ready(process))
        self.refresh()

    async def _await_ready(self, process: WorkerProcess) -> None:
        """Waits until a worker is ready or has ended; kills one that is neither in time."""
        try:
            await ready_or_over(process, self.plan, self._context.gpu_memory)
            await warm_up(process, self.log)
            if process.launch.accept and not process.launch.accepts_at_once:
                await process.ask("accept")
        except Exception as error:
            if not isinstance(error, NotReadyError | UnansweredError):
                self.log.exception(Event.INTERNAL_ERROR, worker=process.slot)
            if process.is_alive():
                process.report.failed = str(error)
            if self.plan.app is not None and not process.notified_ready.done():
                await show_stacks(process)
            process.signal_group(signal.SIGKILL)
            await process.exited
        else:
            self._became_ready(process)
        finally:
            self._context.start_limiter.leave(process)

    def _became_ready(self, process: WorkerProcess) -> None:
        if process.exited.done():
            return
        process.mark_ready()
        seconds = round(process.lived, 3)
        self.log.info(Event.WORKER_READY, worker=process.slot, pid=process.pid, seconds=seconds)
        if process.launch is not self.launch:
            self.keep(self._catch_up(process))
        if not self.plan.is_task:
            self._recycler.watch(process)
        self.refresh()

    async def _catch_up(self, process: WorkerProcess) -> None:
        """Sends a worker that has just become ready the changes made since it was started."""
        launch = process.launch
        with contextlib.suppress(UnansweredError):
            await update(process, launch.plan, self.plan)
            if self.accepts and not launch.accept and self.plan.app is not None:
                await process.ask("accept")

    async def until_ready(self, slots: Iterable[int] | None = None) -> None:
        """Waits for every worker (of `slots`). A death on probation or a worker that is given up
        ends the wait at once; others are tried again until `timeouts.startup`. Raises
        `FailedStartError`.
        """
        wanted = None if slots is None else set(slots)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.plan.startup
        while not self._are_ready(wanted) and not self.exited:
            late = loop.time() >= deadline
            given_up = self.given_up if wanted is None else self.watcher.gives_up(wanted)
            hopeless = self.record.app_failed and self._context.workers.needs_app
            if given_up or hopeless or (late and self.record.start_failures):
                raise self.record.failure()
            if not self.watcher.is_active():
                raise FailedStartError("was stopped before it was ready")
            self._changed.clear()
            patience = None if late else max(0.05, deadline - loop.time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), patience)

    def _are_ready(self, slots: Collection[int] | None) -> bool:
        if slots is None or self.plan.is_task:
            return self.is_ready
        return {p.slot for p in self.watcher.staying if p.was_ready}.issuperset(slots)

    # changing what runs

    async def accept(self) -> None:
        """Lets the workers accept connections. Raises `FailedStartError`."""
        if not self.accepts:
            if self.plan.app is not None:
                await self._each(lambda process: process.ask("accept"))
            self.accepts = True

    def accept_later(self) -> None:
        """Lets workers that are not ready yet accept once they are."""
        self.accepts = True

    async def _each(self, send: Callable[[WorkerProcess], Awaitable[None]]) -> None:
        """Sends something to every ready worker; the others catch up when they are ready."""

        async def one(process: WorkerProcess) -> None:
            try:
                await send(process)
            except UnansweredError as error:
                message = f"worker {process.slot} did not apply the change: {error}"
                raise FailedStartError(message) from None

        await asyncio.gather(*(one(p) for p in self.processes if p.was_ready))

    def end_probation(self) -> None:
        """Restarts failing workers from now on."""
        self.growing = 0
        self.watcher.end_probation(replace(self.launch, accept=True))
        self._recycler.end_probation()

    def learn(self, plan: ServicePlan) -> None:
        """Starts new workers by `plan`."""
        self.plan = plan
        self.watcher.launch = replace(self.launch, plan=plan)

    async def adjust(self, plan: ServicePlan) -> None:
        """Gives the running workers what applies of `plan`, and starts new ones by it. Raises
        `FailedStartError`; the caller then adjusts back.
        """
        before = self.plan
        self.learn(plan)
        self._context.workers.rates.of(plan.name, plan.definition.log.max_rate)
        for process in (*self.processes, *self.leaving):
            process.outputs.print_to(plan.definition.log)
        self.watcher.source.print_to(plan.definition.log)
        await self._each(lambda process: update(process, before, plan))
        if self._recycler.renew(before):
            self.refresh()

    def resize(self, workers: int) -> None:
        """Wants `workers`: new ones start on probation, `end_surplus` ends those beyond."""
        before, self.watcher.numprocesses = self.wanted, workers
        self.growing = max(0, workers - before)
        self.watcher.retry_slots(range(before, workers))  # earlier deaths there are forgotten

    async def start_slots(self, slots: Sequence[int]) -> None:
        """Wants workers up to the last of `slots`; waits for these. Raises `FailedStartError`."""
        self.watcher.numprocesses = slots[-1] + 1
        self.watcher.manage_processes()
        await self.until_ready(slots)

    async def fill(self, workers: int) -> None:
        """Makes slots 0..workers-1 ready before a scale-down, if the ready workers are in higher
        slots. Raises `FailedStartError`.
        """
        ready = {p.slot for p in self.watcher.staying if p.was_ready}
        missing = set(range(workers)) - ready
        if missing and max(ready, default=-1) >= workers:
            self.watcher.retry_slots(missing)
            await self.until_ready(missing)

    async def end_surplus(self) -> None:
        """Drains surplus workers; returns once they accept no more."""
        surplus = [p for p in self.processes if p.slot >= self.wanted]
        if surplus:
            for process in surplus:
                process.stop_reason = "scaled down"
                self.watcher.ask_to_end(process)
            self.keep(self.watcher.end_slots([p.slot for p in surplus]))
            await self._wait_stopped_accepting(surplus)
            self._owner.refresh()

    async def drain_slots(self, slots: Collection[int]) -> None:
        """Drains the workers of `slots` to their end, and leaves the slots empty."""
        for process in self.processes:
            if process.slot in slots:
                process.stop_reason = process.stop_reason or "replaced"
        self.watcher.drained_slots |= set(slots)
        await self.watcher.end_slots(slots)

    async def restart_slots(self, slots: Collection[int]) -> None:
        """Starts the workers of `slots` again. Raises `FailedStartError`."""
        self.watcher.drained_slots -= set(slots)
        self.watcher.manage_processes()
        await self.until_ready([slot for slot in slots if slot < self.wanted])

    def retry(self) -> None:
        """Ends every back-off and retries failed workers."""
        if not self.is_ready and self.watcher.history:
            self.watcher.retry()

    def recycle(self, process: WorkerProcess) -> None:
        """Replaces a worker that asks for it."""
        self._recycler.asked(process)

    # ending

    async def stop_accepting(self, reason: str) -> None:
        """Begins the end: returns once the workers accept no more."""
        self.watcher.stop_reason = reason
        processes = self.processes
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end())
            self._ending.add_done_callback(lambda _: self._owner.refresh())
        await self._wait_stopped_accepting(processes)
        self.accepts = False

    async def _end(self) -> None:
        self._recycler.end()
        await self.watcher.end()
        self._context.arbiter.remove(self.watcher)
        for task in self._tasks:
            task.cancel()
        self._changed.set()

    async def _wait_stopped_accepting(self, processes: Iterable[WorkerProcess]) -> None:
        """Waits until each app worker reports STOPPING=1. Commands need not support it."""
        await asyncio.sleep(0)  # sends the signals
        if self.plan.app is not None:
            await asyncio.gather(*(p.wait_stopped_accepting() for p in processes if p.was_ready))

    async def wait_ended(self) -> None:
        """Returns once every worker has ended."""
        if self._ending is not None:
            await asyncio.shield(self._ending)

    async def abort_drains(self) -> None:
        """Ends drains early; returns when the workers have ended."""
        await asyncio.gather(*(abort_drain(process) for process in self.leaving))

    def kill_unready(self) -> None:
        """Kills workers that never became ready: they have no requests. None takes their place."""
        self.watcher.respawn = False
        for process in self.processes:
            if not process.was_ready:
                process.stopping = True
                process.signal_group(signal.SIGKILL)

    def kill(self) -> None:
        """Kills every worker immediately."""
        self.watcher.kill_now()

    # for the recorder and the recycler

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` as long as the group lives."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._is_over)

    def _is_over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self.log.error(Event.INTERNAL_ERROR, exc_info=fault)

    def lost(self, exit_: WorkerExit, history: RestartHistory) -> None:
        """A worker exited unexpectedly."""
        self._owner.lost(exit_, history)

    def overdue(self) -> None:
        """A worker did not end in time."""
        self._owner.overdue()

    def refresh(self) -> None:
        """Something about the workers has changed."""
        self._changed.set()
        self._owner.refresh()
