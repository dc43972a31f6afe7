"""One generation of a service: a definition with its sockets, its watcher and its workers."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Protocol

from servd.plan.model import ServicePlan
from servd.supervisor.app_folders import make_app_folders
from servd.supervisor.circus.process import Launch, WorkerProcess
from servd.supervisor.circus.watcher import ServiceWatcher
from servd.supervisor.context import SupervisorContext
from servd.supervisor.counters import CounterRegistry
from servd.supervisor.exits import FailedStartError, WorkerExit
from servd.supervisor.health.readiness import NotReadyError, ready_or_over
from servd.supervisor.health.recycler import Recycler
from servd.supervisor.io.channel import UnansweredError
from servd.supervisor.respawn import RestartHistory
from servd.supervisor.sockets.pool import Listener
from servd.supervisor.worker_commands import cut, tell
from servd.supervisor.worker_events import WorkerEventRecorder
from servd.wire.worker_spec import SocketSpec


class GenerationOwner(Protocol):
    """The service that a generation is of."""

    log: Any

    def refresh(self) -> None:
        """Something about the workers has changed."""

    def lost(self, generation: Generation, exit_: WorkerExit, history: RestartHistory) -> None:
        """A worker ended without being asked to."""

    def killed(self) -> None:
        """A worker did not end in time."""


class Generation:
    """Runs one `ServicePlan` under one number."""

    def __init__(
        self, plan: ServicePlan, number: int, engine: SupervisorContext, owner: GenerationOwner
    ) -> None:
        self.plan = plan
        self.number = number
        self.engine = engine
        self.owner = owner
        self.log = owner.log.bind(generation=number)
        self.listeners: list[Listener] = []
        self.watcher: ServiceWatcher | None = None
        self.completed = False
        self.accepts = False
        self.start_failures = 0
        self.growing = 0
        self.last_exit: WorkerExit | None = None
        self.recycler = Recycler(self)
        self._ending: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def processes(self) -> list[WorkerProcess]:
        """The workers that are not on their way out, by index."""
        if self.watcher is None:
            return []
        workers = [p for p in self.watcher.processes.values() if not p.stopping]
        return sorted(workers, key=lambda process: process.slot)

    @property
    def leaving(self) -> list[WorkerProcess]:
        """The workers that drain."""
        if self.watcher is None:
            return []
        return [p for p in self.watcher.processes.values() if p.stopping]

    @property
    def ready_count(self) -> int:
        """Places with a worker that is ready and well; one that is replaced has two in its own."""
        return len({p.slot for p in self.processes if p.was_ready and not p.unwell})

    @property
    def unwell(self) -> str:
        """What is wrong with a worker that runs, where one fails its probes."""
        return next((f"worker {p.slot}: {p.unwell}" for p in self.processes if p.unwell), "")

    @property
    def counts(self) -> CounterRegistry:
        """Where restarts are counted."""
        return self.engine.counts

    @property
    def wanted(self) -> int:
        """Workers that there should be."""
        return self.watcher.numprocesses if self.watcher is not None else self.plan.workers

    @property
    def is_ready(self) -> bool:
        """Whether all is there that should be."""
        if self.plan.is_task:
            return self.completed or not self.plan.workers
        return self.watcher is not None and self.ready_count >= self.wanted

    @property
    def grows(self) -> bool:
        """Whether workers are on their way that were not there before, and all others are well."""
        return bool(self.growing) and self.ready_count >= self.wanted - self.growing

    @property
    def serves(self) -> bool:
        """Whether a client would be answered."""
        return self.accepts and any(process.was_ready for process in self.processes)

    @property
    def pausing(self) -> bool:
        """Whether a worker waits for its pause to be over."""
        if self.watcher is None:
            return False
        now = asyncio.get_running_loop().time()
        return any(history.until > now for history in self.watcher.history.values())

    @property
    def given_up(self) -> bool:
        """Whether a worker is missing that will not be started again."""
        return self.watcher is not None and self.watcher.given_up

    def bind(self) -> None:
        """Takes the sockets; connections wait in their queues from now on. A service that is kept
        stopped listens nowhere: its clients are refused instead of waiting for ever.

        Raises `StartError`.
        """
        if self.plan.workers == 0:
            return
        known = set(self.engine.pool.bound)
        for socket_plan in self.plan.sockets:
            listener = self.engine.pool.acquire(socket_plan)
            self.listeners.append(listener)
            fresh = any(item.key not in known for item in listener.bound)
            if fresh and not socket_plan.internal:
                self.log.info("listening", address=listener.url)

    def settle(self) -> None:
        """The sockets are as this generation's plan has them. Raises OSError."""
        for listener in self.listeners:
            listener.settle()

    def release(self) -> None:
        """Gives the sockets back."""
        while self.listeners:
            self.engine.pool.release(self.listeners.pop())

    async def begin(
        self, *, accept: bool = True, trial: bool = False, slots: int | None = None
    ) -> None:
        """Starts the workers (the first `slots` of them).

        Without `accept` they get ready and wait for `accept()`; on `trial` none is started again.
        """
        self.accepts = accept
        make_app_folders(self.plan)
        self.watcher = ServiceWatcher(
            self._launch(accept), WorkerEventRecorder(self), self.engine.gate
        )
        if not trial:
            self.recycler.prove()
        else:
            self.watcher.trial = set(range(self.plan.workers))
        if slots is not None:
            self.watcher.numprocesses = slots
        self.engine.arbiter.add(self.watcher)
        await self.watcher._start()

    def _launch(self, accept: bool) -> Launch:
        sockets = [
            (SocketSpec(listener.plan.name, 0, listener.plan.tls), sock)
            for listener in self.listeners
            for sock in listener.sockets
        ]
        return Launch(self.plan, self.number, tuple(sockets), self.engine, accept)

    async def until_ready(self, slots: Iterable[int] | None = None) -> None:
        """Waits for every worker (of `slots`). One that dies on trial, or is given up, ends the
        waiting at once; any other is tried again until `timeouts.startup` is over.

        Raises `FailedStartError`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.plan.startup
        while not self._ready(slots):
            if self._gives_up(slots) or (loop.time() >= deadline and self.start_failures):
                raise self._failure()
            if self.watcher is None or not self.watcher.is_active():
                raise FailedStartError("it was stopped before it was ready")
            self._changed.clear()
            late = loop.time() >= deadline
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._changed.wait(), None if late else max(0.05, deadline - loop.time())
                )

    def _gives_up(self, slots: Iterable[int] | None) -> bool:
        if self.watcher is None or slots is None:
            return self.given_up
        return self.watcher.gives_up(slots)

    def _ready(self, slots: Iterable[int] | None) -> bool:
        if slots is None or self.plan.is_task:
            return self.is_ready
        ready = {process.slot for process in self.processes if process.was_ready}
        return ready.issuperset(slots)

    def check(self) -> None:
        """Raises `FailedStartError` when a worker of a generation on trial is gone."""
        if not self.is_ready:
            raise self._failure()

    def _failure(self) -> FailedStartError:
        last = self.last_exit
        if last is None:
            return FailedStartError("it did not start")
        return FailedStartError(f"worker {last.worker}: {last.reason}", last)

    async def accept(self) -> None:
        """Lets the workers accept connections. Raises `FailedStartError`."""
        if self.accepts or self.watcher is None:
            return
        if self.plan.app is not None:
            await self._each(lambda process: process.ask("accept"))
        self.accepts = True

    async def _each(self, tell: Callable[[WorkerProcess], Awaitable[None]]) -> None:
        """Tells every worker that is ready; those that are not yet catch up."""

        async def one(process: WorkerProcess) -> None:
            try:
                await tell(process)
            except UnansweredError as error:
                message = f"worker {process.slot} did not take the change over: {error}"
                raise FailedStartError(message) from None

        await asyncio.gather(*(one(p) for p in self.processes if p.was_ready))

    def prove(self) -> None:
        """The trial is over: from now on workers that die are started again."""
        self.growing = 0
        if self.watcher is not None:
            self.watcher.accept_from_now_on(replace(self.watcher.launch, accept=True))
            self.watcher.manage_later()
            self.recycler.prove()

    async def adjust(self, plan: ServicePlan) -> None:
        """Takes over from `plan` what applies to running workers, and starts new ones with it.

        Raises `FailedStartError` or OSError; whoever called then adjusts back.
        """
        before, self.plan = self.plan, plan
        for listener in self.listeners:
            listener.plan = next(s for s in plan.sockets if s.key == listener.plan.key)
        self.settle()
        if self.watcher is None:
            return
        self.watcher.launch = replace(self.watcher.launch, plan=plan)
        await self._each(lambda process: tell(process, before, plan))
        if (plan.health, plan.watchdog) != (before.health, before.watchdog):
            self.recycler.renew()
            self.refresh()

    def resize(self, workers: int) -> None:
        """Wants so many workers; new ones start on trial, the surplus is left to `end_surplus`."""
        assert self.watcher is not None
        before, self.watcher.numprocesses = self.watcher.numprocesses, workers
        self.growing = max(0, workers - before)
        self.watcher.try_anew(range(before, workers))  # what died there once was another worker

    async def fill(self, workers: int) -> None:
        """Has the first `workers` ready, where it is others that are and that shall go.

        Raises `FailedStartError`.
        """
        ready = {process.slot for process in self.processes if process.was_ready}
        missing = set(range(workers)) - ready
        if self.watcher is not None and missing and max(ready, default=-1) >= workers:
            self.watcher.try_anew(missing)
            await self.until_ready(missing)

    async def end_surplus(self) -> None:
        """Drains workers beyond those that are wanted; returns once they accept no more."""
        surplus = [p for p in self.processes if p.slot >= self.wanted]
        if surplus and self.watcher is not None:
            for process in surplus:
                process.leaves_for = "scaled down"
                self.watcher.ask_to_end(process)
            self.keep(self.watcher.end_slots([p.slot for p in surplus]))
            await self._stops_accepting(surplus)
            self.owner.refresh()

    async def withhold(self, slots: Iterable[int]) -> None:
        """Drains the workers of `slots` to their end, and leaves their places empty."""
        assert self.watcher is not None
        for process in self.processes:
            if process.slot in set(slots):
                process.leaves_for = process.leaves_for or "replaced"
        self.watcher.withheld |= set(slots)
        await self.watcher.end_slots(slots)

    async def put_back(self, slots: Iterable[int]) -> None:
        """Starts the workers of `slots` again. Raises `FailedStartError`."""
        assert self.watcher is not None
        self.watcher.withheld -= set(slots)
        self.watcher.manage_processes()
        await self.until_ready([slot for slot in slots if slot < self.wanted])

    async def resume(self) -> None:
        """Starts again what was ended."""
        self._ending = None
        self.bind()
        await self.begin()

    async def retire(self, why: str = "replaced") -> None:
        """Begins the end: returns once the workers accept no more and the sockets that nobody
        else uses are closed, with all that had connected to them accepted. `ended` waits for the
        rest. `why` is for people.
        """
        if self.watcher is not None:
            self.watcher.why_ending = why
        if self.serves:
            going = self.engine.pool.vacate(self.listeners)
            await asyncio.gather(*(item.empty() for item in going))
        processes = self.processes
        self._begin_end()
        await self._stops_accepting(processes)
        self.accepts = False
        self.release()

    def _begin_end(self) -> None:
        if self._ending is None and self.watcher is not None:
            self._ending = asyncio.get_running_loop().create_task(self._end(self.watcher))
            self._ending.add_done_callback(lambda _: self.owner.refresh())

    async def _end(self, watcher: ServiceWatcher) -> None:
        self.recycler.end()
        await watcher._stop()
        self.engine.arbiter.remove(watcher)
        for task in self._tasks:
            task.cancel()
        self._changed.set()

    async def _stops_accepting(self, processes: Iterable[WorkerProcess]) -> None:
        """Waits for the word of each. A command need not know the word: it was told, and that
        has to do.
        """
        await asyncio.sleep(0)  # the signals are sent
        if self.plan.app is not None:
            waiting = [p.stops_accepting() for p in processes if p.was_ready]
            await asyncio.gather(*waiting)

    async def ended(self) -> None:
        """Returns once every worker has ended."""
        if self._ending is not None:
            await asyncio.shield(self._ending)

    async def discard(self) -> None:
        """Undoes a generation that is not wanted after all; returns when nothing of it is left."""
        if self.watcher is not None and not self.accepts:
            for process in self.processes:
                if not process.was_ready:
                    process.stopping = True
                    process.signal_group(signal.SIGKILL)
        await self.retire("undone")
        await self.ended()

    @property
    def has_ended(self) -> bool:
        """Whether it has run, and was ended."""
        return self._ending is not None and self._ending.done()

    @property
    def over(self) -> bool:
        """Whether nothing of it runs any more, or ever did."""
        return self.watcher is None or self.has_ended

    @property
    def requests_in_flight(self) -> int:
        """Requests that draining workers are still answering, as far as they say."""
        return sum(p.report.draining.get("request", 0) for p in self.leaving)

    async def cut(self) -> None:
        """Ends a drain before its time."""
        await asyncio.gather(*(cut(process) for process in self.leaving))
        await self.ended()

    def kill(self) -> None:
        """Ends every worker at once."""
        if self.watcher is not None:
            self.watcher.kill_now()

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` for as long as the generation lives."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def expect(self, process: WorkerProcess) -> None:
        """Waits for the readiness of a worker that was just started."""
        self.keep(self._await_ready(process))
        self.refresh()

    async def _await_ready(self, process: WorkerProcess) -> None:
        """Waits until a worker is ready or has ended; one that is neither in time is ended."""
        try:
            on_trial = self.watcher is not None and process.slot in self.watcher.trial
            await ready_or_over(process, self.plan, on_trial=on_trial)
            if process.launch.accept and not process.launch.accepts_at_once:
                await process.ask("accept")
        except (NotReadyError, UnansweredError) as error:
            if process.is_alive():
                process.report.failed = str(error)
            process.signal_group(signal.SIGKILL)
            await process.exited
        else:
            self._became_ready(process)
        finally:
            self.engine.gate.leave(process)

    def _became_ready(self, process: WorkerProcess) -> None:
        if process.exited.done():
            return
        process.mark_ready()
        seconds = round(process.lived, 3)
        self.log.info("worker ready", worker=process.slot, pid=process.pid, seconds=seconds)
        if self.watcher is not None and process.launch is not self.watcher.launch:
            self.keep(self._catch_up(process, process.launch))
        if not self.plan.is_task:
            self.recycler.watch(process)
        self.refresh()

    async def _catch_up(self, process: WorkerProcess, launch: Launch) -> None:
        """What has changed since the worker was started, it is told as soon as it can listen."""
        with contextlib.suppress(UnansweredError):
            await tell(process, launch.plan, self.plan)
            if self.accepts and not launch.accept and self.plan.app is not None:
                await process.ask("accept")

    def refresh(self) -> None:
        """Something about the workers has changed."""
        self._changed.set()
        self.owner.refresh()
