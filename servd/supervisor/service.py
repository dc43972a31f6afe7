"""One service as it runs: its state, its workers, and why it is not what it should be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from servd.errors import StartError
from servd.plan.model import ServicePlan
from servd.supervisor.arbiter import ServdArbiter
from servd.supervisor.output import Sink
from servd.supervisor.process import Launch, WorkerProcess
from servd.supervisor.readiness import probe_until_ready
from servd.supervisor.respawn import History
from servd.supervisor.sockets import Listener, SocketPool
from servd.supervisor.tls_files import read_tls
from servd.supervisor.watcher import ServiceWatcher, StartGate
from servd.wire.worker_spec import SocketSpec

State = Literal[
    "waiting", "starting", "ready", "rolling", "degraded", "backoff",
    "stopping", "stopped", "failed", "completed",
]  # fmt: skip

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Engine:
    """What all services share: Circus's arbiter, the sockets, and the way out for output."""

    arbiter: ServdArbiter
    pool: SocketPool
    gate: StartGate
    sink: Sink
    now: Callable[[], str]
    notify_folder: str
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker ended, for people."""

    worker: int
    pid: int
    status: int
    reason: str
    last_lines: tuple[str, ...] = ()


@dataclass(slots=True)
class Milestones:
    """What others wait for. `settled`: ready, or known not to be for now."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class Service:
    """Runs one `ServicePlan`. Its watcher tells it what happens to processes."""

    def __init__(self, plan: ServicePlan, engine: Engine, generation: int = 1) -> None:
        self.plan = plan
        self.engine = engine
        self.generation = generation
        self.state: State = "waiting"
        self.error = ""
        self.restarts = 0
        self.killed = 0
        self.last_exit: Exit | None = None
        self.milestones = Milestones()
        self.listeners: list[Listener] = []
        self.watcher: ServiceWatcher | None = None
        self._start_failures = 0
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.log = log.bind(service=plan.name)

    @property
    def processes(self) -> list[WorkerProcess]:
        """The workers of the current generation, by index."""
        if self.watcher is None:
            return []
        return sorted(self.watcher.processes.values(), key=lambda process: process.slot)

    @property
    def ready_count(self) -> int:
        """Workers that are ready now."""
        return sum(process.was_ready for process in self.processes)

    def bind(self) -> None:
        """Binds the service's sockets; connections wait in their queues from now on.

        Raises `StartError`.
        """
        for socket_plan in self.plan.sockets:
            listener = self.engine.pool.acquire(socket_plan)
            self.listeners.append(listener)
            if not socket_plan.internal:
                self.log.info("listening", address=listener.url)

    def release(self) -> None:
        """Gives the sockets back."""
        while self.listeners:
            self.engine.pool.release(self.listeners.pop())

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

    async def start(self) -> None:
        """Starts the workers and returns once all are ready, or the service is known to fail.

        Raises `StartError` with what went wrong; workers that keep dying are tried again with
        back-off even after that, as `restart` says.
        """
        if self.plan.workers == 0:
            self.set_state("stopped", reason="workers = 0")
            self.milestones.settled.set()
            return
        self.set_state("starting")
        try:
            watcher = ServiceWatcher(self._launch(), self, self.engine.gate)
        except StartError as error:
            self.fail(str(error))
            raise
        self.watcher = watcher
        self.engine.arbiter.add(watcher)
        await watcher._start()
        self.milestones.started.set()
        try:
            await self._until_ready(watcher)
        finally:
            self.milestones.settled.set()

    def _launch(self) -> Launch:
        plan = self.plan
        sockets = [
            (SocketSpec(listener.plan.name, 0, listener.plan.tls), sock)
            for listener in self.listeners
            for sock in listener.sockets
        ]
        tls = read_tls(plan.tls) if plan.tls is not None else None
        engine = self.engine
        return Launch(
            plan,
            self.generation,
            tuple(sockets),
            tls,
            engine.notify_folder,
            engine.sink,
            engine.now,
        )

    async def _until_ready(self, watcher: ServiceWatcher) -> None:
        """Waits for every worker; fails when `timeouts.startup` is over and one has failed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.plan.startup
        while self.state != "ready":
            if watcher.given_up:
                raise StartError(self.error)
            late = loop.time() >= deadline
            if late and self._start_failures:
                raise StartError(self.error)
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                pause = max(0.05, deadline - loop.time()) if not late else None
                await asyncio.wait_for(self._changed.wait(), pause)

    def spawned(self, process: WorkerProcess) -> None:
        """A worker was started: wait for its readiness."""
        self.log.debug("worker started", worker=process.slot, pid=process.pid)
        task = asyncio.get_running_loop().create_task(self._await_ready(process))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._refresh()

    async def _await_ready(self, process: WorkerProcess) -> None:
        """Waits until a worker is ready or has ended; one that is neither in time is ended."""
        try:
            async with asyncio.timeout(self.plan.startup):
                await self._readiness(process)
        except TimeoutError:
            process.report.failed = f"was not ready within {self.plan.startup:g} s"
            process.signal_group(signal.SIGKILL)
            await process.exited
        else:
            self._became_ready(process)
        finally:
            self.engine.gate.leave(process)

    async def _readiness(self, process: WorkerProcess) -> None:
        """Returns when the worker says READY=1, a probe succeeds, or it has ended."""
        plan = self.plan.ready
        if plan.mode == "started":
            return
        waited: set[asyncio.Future[Any]] = {process.ready, process.exited}
        asked: asyncio.Task[None] | None = None
        if plan.mode in ("port", "http"):
            asked = asyncio.get_running_loop().create_task(probe_until_ready(plan))
            waited.add(asked)
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if asked is not None:
                asked.cancel()

    def _became_ready(self, process: WorkerProcess) -> None:
        if process.exited.done():
            return
        process.mark_ready()
        self.log.info(
            "worker ready", worker=process.slot, pid=process.pid, seconds=round(process.lived, 3)
        )
        self._refresh()

    def died(self, process: WorkerProcess, status: int, history: History) -> None:
        """A worker ended without being asked to: say why, and what happens next."""
        reason = process.report.failed or describe(status)
        reason += self._passthrough_hint(process.report.missing_variable)
        last_lines = () if process.was_ready else tuple(process.last_lines.text())
        self.last_exit = Exit(process.slot, process.pid, status, reason, last_lines)
        self._lost(process.slot, process.pid, status, reason, history, process.was_ready)

    def overdue(self, process: WorkerProcess, seconds: float) -> None:
        """A worker did not end in time when it was asked to, and is killed."""
        self.killed += 1
        self.log.warning(
            "worker killed",
            worker=process.slot,
            pid=process.pid,
            reason=f"did not end within {seconds:g} s of being asked to",
        )

    def not_spawned(self, slot: int, error: OSError, history: History) -> None:
        """The system could not start a worker: a failure like any other."""
        reason = f"could not be started: {error.strerror or error}"
        if error.filename:
            reason += f" ({os.fsdecode(error.filename)})"
        account = self.plan.identity.account
        if error.filename and isinstance(error, PermissionError) and account is not None:
            reason += f": the user {account.name} must be able to read and run it"
        self.last_exit = Exit(slot, 0, -1, reason)
        self._lost(slot, 0, -1, reason, history, False)

    def _lost(
        self, slot: int, pid: int, status: int, reason: str, history: History, was_ready: bool
    ) -> None:
        self.error = f"worker {slot} {reason}"
        self._start_failures += not was_ready
        self.restarts += not history.over
        pause = max(0.0, history.until - asyncio.get_running_loop().time())
        what = {"gave_up": "given up", "policy": "not restarted"}.get(
            history.over, f"restarting in {pause:.1f} s" if pause else "restarting"
        )
        self.log.warning(
            "worker died", worker=slot, pid=pid, exit_status=status, reason=reason, then=what
        )
        self._refresh()

    def _passthrough_hint(self, missing: str | None) -> str:
        """A name that the daemon has and the worker has not is a question of env_passthrough."""
        if missing is None or missing not in self.engine.environ:
            return ""
        return (
            f" ({missing} is set for the daemon, but not passed on:"
            f' add env_passthrough = ["{missing}"])'
        )

    def _refresh(self) -> None:
        """The state that follows from the workers as they are."""
        watcher = self.watcher
        self._changed.set()
        if watcher is None or self.state in ("stopping", "stopped"):
            return
        ready, desired = self.ready_count, watcher.numprocesses
        if ready == desired:
            self.error = ""
            self.set_state("ready", workers=ready)
            self.milestones.ready.set()
        elif watcher.given_up and ready == 0:
            self.set_state("failed", error=self.error)
        elif self.milestones.ready.is_set() and ready:
            self.set_state("degraded", ready=ready, desired=desired, error=self.error)
        elif self._pausing(watcher) and ready == 0:
            self.set_state("backoff", error=self.error)
        elif not ready and self.state != "backoff":
            self.set_state("starting")

    @staticmethod
    def _pausing(watcher: ServiceWatcher) -> bool:
        now = asyncio.get_running_loop().time()
        return any(history.until > now for history in watcher.history.values())

    async def stop(self) -> None:
        """Drains and ends every worker, then closes the sockets."""
        if self.watcher is not None and not self.watcher.is_stopped():
            self.set_state("stopping")
            await self.watcher._stop()
            self.engine.arbiter.remove(self.watcher)
        for task in self._tasks:
            task.cancel()
        self.release()
        self.set_state("stopped")

    def kill(self) -> None:
        """Ends every worker at once."""
        if self.watcher is not None:
            self.watcher.kill_now()


def describe(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
