"""One worker process: spawned without a shell, with only its own descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from circus.process import RUNNING, UNEXISTING, Process

from servd.core.printable import visible
from servd.supervisor.circus.launch import Launch
from servd.supervisor.circus.outputs import ProcessOutputs
from servd.supervisor.circus.remains import Remains
from servd.supervisor.circus.spawn import raise_limits, spawn
from servd.supervisor.io.channel import WorkerChannel
from servd.supervisor.io.messages import WorkerMessage
from servd.supervisor.templates.forked import Child
from servd.wire.graces import IMMORTAL_SECONDS
from servd.wire.shm_counters import CounterView

_KEPT_FIELDS = frozenset({"STATUS", "ERRNO", "BUSERROR", "MAINPID"})
_FIELD_CHARACTERS = 1024
_STATUS_CHARACTERS = 200
_MOST_DIGITS = 18

WORKER_STATES = ("starting", "ready", "unhealthy", "draining")


@dataclass(slots=True)
class WorkerReport:
    """What a process reported over its channel."""

    failed: str = ""
    app_failed: bool = False
    missing_variable: str | None = None
    draining: dict[str, int] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def status_text(self) -> str:
        """Its own words about its state (STATUS=), as one short line; "" for none."""
        text = visible(" ".join(self.fields.get("STATUS", "").split()))
        return text if len(text) <= _STATUS_CHARACTERS else f"{text[:_STATUS_CHARACTERS]}…"

    def take(self, fields: Mapping[str, str]) -> None:
        """Keeps the fields of a notification that are shown to people."""
        self.fields |= {n: fields[n][:_FIELD_CHARACTERS] for n in _KEPT_FIELDS & fields.keys()}


class ProcessListener(Protocol):
    """Receives what a process starts on its own initiative."""

    def recycle_requested(self, process: WorkerProcess) -> None:
        """The worker asks to be replaced because of `recycle_reason`."""

    def left_behind(self, process: WorkerProcess, left: dict[int, str], seconds: float) -> None:
        """The worker has ended, and left processes behind, which have `seconds` to end."""


class WorkerProcess(Process):  # type: ignore[misc]  # Circus has no types
    """A worker as Circus knows it, started and ended by servd's rules.

    Futures tell what has happened: `exited` (reaped, with the exit status), `notified_ready`
    (READY=1 came), `ready` (it counts as ready), `stopped_accepting` (STOPPING=1 came), `signed`
    (WATCHDOG=1 came) and `channel_closed` (a command became its program). `last_sign` is the loop's
    time of the last WATCHDOG=1, `asked_at` that of the request to end. Reasons: `unwell` (it is not
    healthy), `kill_reason` (servd killed it), `stop_reason` (it is asked to stop), `recycle_reason`
    (it asks to be replaced, because of `recycle_error`). `extended_until` is the loop's time to
    which it has asked to extend its start, `on_extension` is called when it does.
    """

    _worker: Child
    __hash__ = object.__hash__  # Circus compares by identity, but forgets the hash

    def __init__(self, launch: Launch, slot: int, watcher: Any, listener: ProcessListener) -> None:
        loop = asyncio.get_running_loop()
        self.launch = launch
        self.slot = slot
        self.exited: asyncio.Future[int] = loop.create_future()
        self.notified_ready: asyncio.Future[None] = loop.create_future()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.stopped_accepting: asyncio.Future[None] = loop.create_future()
        self.channel_closed: asyncio.Future[None] = loop.create_future()
        self.signed: asyncio.Future[None] = loop.create_future()
        self.outputs = ProcessOutputs(launch)
        self.report = WorkerReport()
        self.was_ready = False
        self.unwell = ""
        self.kill_reason = ""
        self.stop_reason = ""
        self.last_sign: float | None = None
        self.recycle_reason = self.recycle_error = ""
        self.extended_until: float | None = None
        self.on_extension: Callable[[], object] = lambda: None
        self.counters: CounterView | None = None
        self.started_at = loop.time()
        self.since = launch.context.now()
        self._listener = listener
        self._loop = loop
        self._remains: Remains | None = None
        self._end_rest: asyncio.TimerHandle | None = None
        self._killed_at: float | None = None
        self.asked_at: float | None = None
        super().__init__(
            launch.plan.name,
            slot + 1,
            "servd worker",
            working_dir=launch.plan.directory,
            watcher=watcher,
            spawn=False,
        )
        self.spawn()

    def spawn(self) -> None:
        """Starts the process and sends its spec. Raises OSError, which names the cause."""
        launch = self.launch
        started = spawn(launch, self.slot, self.watcher.source.template, self._notified)
        self._worker = started.child
        self.counters = started.counters
        self.notify = started.notify
        launch.context.registry.add(self.pid, launch.plan, self.notify.path)
        budget = launch.context.budget
        self._channel = WorkerChannel(started.channel, self._said, self._hung_up, budget)
        self.outputs.open(started.outputs, worker=self.slot, pid=self.pid)
        try:
            raise_limits(self.pid, launch.plan.identity)
            spec = launch.spec(self.slot, started.seat, started.inherited)
            self._channel.tell(spec.to_json())
        except OSError:
            self.signal_group(signal.SIGKILL)
            self._finish(self._worker.wait())
            raise

    def _notified(self, fields: dict[str, str]) -> None:
        self.report.take(fields)
        if fields.get("WATCHDOG") == "1":
            self.last_sign = self._loop.time()
            _set(self.signed)
        if (more := fields.get("EXTEND_TIMEOUT_USEC", "")).isdecimal():
            self.extended_until = self._loop.time() + int(more[:_MOST_DIGITS]) / 1_000_000
            self.on_extension()
        if fields.get("READY") == "1":
            _set(self.notified_ready)
        if fields.get("STOPPING") == "1":
            _set(self.stopped_accepting)

    def mark_ready(self) -> None:
        """Counts the worker as ready."""
        if not self.ready.done():
            self.was_ready = True
            if self.launch.plan.app is not None:  # it was about the start
                self.report.fields.pop("STATUS", None)
            self.ready.set_result(None)

    def read_notifications(self) -> None:
        """Reads the notifications that the loop has not come to yet."""
        self.notify.read()

    def mend_notify(self) -> list[str]:
        """Makes its notification socket again if it was removed; its path. Raises OSError."""
        return self.notify.mend() if self.is_alive() else []

    def _hung_up(self) -> None:
        _set(self.channel_closed)

    def _said(self, message: WorkerMessage) -> None:
        context, service = self.launch.context, self.launch.plan.name
        if message.draining is not None:
            self.report.draining = message.draining
        elif message.recycle is not None:
            self.recycle_reason, self.recycle_error = message.recycle, message.reason
            self._listener.recycle_requested(self)
        elif message.sources is not None and context.sources is not None:
            context.sources.note(service, message.sources)
        elif message.failed is not None:
            self.report.failed = message.reason or self.report.failed
            self.report.app_failed = message.app_failed
            self.report.missing_variable = message.missing_variable
            if message.loads_now:
                context.replan(service)

    async def ask(self, do: str, *, descriptor: int | None = None, **details: Any) -> None:
        """Asks the worker to do something, and waits until it is done. Raises `UnansweredError`."""
        await self._channel.ask(do, self.exited, descriptor=descriptor, **details)

    async def wait_stopped_accepting(self) -> None:
        """Returns once the worker has reported STOPPING=1, or has ended."""
        waited: set[asyncio.Future[Any]] = {self.stopped_accepting, self.exited}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)

    def reap(self) -> int | None:
        """Returns the exit status if the process and what it has started have ended, else None. The
        rest of its group is killed while the dead process still holds the group's id, so that no
        stranger with a recycled id is hit.
        """
        if self._worker.returncode is not None:
            return self._worker.returncode
        try:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
        except ChildProcessError:
            if self._worker.poll() is None:
                return None
        if self._leaves_something_behind():
            return None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        status = self._worker.wait()
        self._finish(status)
        return status

    def _leaves_something_behind(self) -> bool:
        """Ends what is left of it: with SIGTERM and the rest of its time, then with SIGKILL. An app
        that died takes everything with it at once: nothing else answers its requests.
        """
        first = self._remains is None
        if self._remains is None:
            self._remains = Remains(self.pid, self.notify.path, self._look_again)
        found = self._remains.look(self.launch.context.registry.knows)
        killed_for = self._loop.time() - self._killed_at if self._killed_at is not None else 0.0
        if not found or (killed_for > IMMORTAL_SECONDS and not first):
            return False
        if first:
            crashed = self.launch.plan.app is not None and not self.stopping
            seconds = 0.0 if crashed else self._rest_seconds()
            self._listener.left_behind(self, found, seconds)
            self.unwell = self.unwell or "it exited, but left processes running"
            self._remains.end(seconds)
            self._end_rest = self._loop.call_later(seconds, self.signal_group, signal.SIGKILL)
        elif self._killed_at is not None:
            self._remains.signal(signal.SIGKILL)
        return True

    def _rest_seconds(self) -> float:
        """Seconds that remain for what it leaves behind."""
        if self._killed_at is not None:
            return 0.0
        plan = self.launch.plan
        limit = plan.stop_seconds if plan.app is None else plan.app.timeouts.shutdown
        since = self.asked_at if self.asked_at is not None and plan.app is None else None
        return max(0.0, limit - (self._loop.time() - since if since is not None else 0.0))

    def _look_again(self) -> None:
        self.watcher.arbiter.manage_watchers()

    def _finish(self, status: int) -> None:
        """Reads the last words, releases everything. `exited` is done even if a step fails."""
        with contextlib.ExitStack() as steps:  # run from the last to the first
            steps.callback(self._has_exited, status)
            steps.callback(self.launch.context.registry.remove, self.pid)
            if self.counters is not None:
                steps.callback(
                    self.launch.context.counters.close, self.launch.plan.name, self.counters
                )
            if self._remains is not None:
                steps.callback(self._remains.close)
            if self._end_rest is not None:
                steps.callback(self._end_rest.cancel)
            steps.callback(self.notify.close)
            steps.callback(self.notify.read)
            steps.callback(self._channel.close)
            steps.callback(self.outputs.close)

    def _has_exited(self, status: int) -> None:
        self.counters = None
        if not self.exited.done():
            self.exited.set_result(status)
        for waited in (
            self.notified_ready,
            self.ready,
            self.stopped_accepting,
            self.channel_closed,
        ):
            waited.cancel()

    def signal_group(self, number: int) -> None:
        """Sends a signal to the process and everything that it started."""
        if self._worker.returncode is None:
            if number == signal.SIGKILL and self._killed_at is None:
                self._killed_at = self._loop.time()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
            if self._remains is not None:
                self._remains.signal(number)

    def signal_self(self, number: int) -> None:
        """Sends a signal to the process alone."""
        if self._worker.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    @property
    def status(self) -> int:
        """Circus's word for whether it runs, from our reaping instead of psutil's scan."""
        return UNEXISTING if self._worker.returncode is not None else RUNNING  # type: ignore[no-any-return]

    def is_alive(self) -> bool:
        """Whether it has not been reaped. (Circus's own polls, and takes the exit status.)"""
        return self._worker.returncode is None

    def stop(self) -> None:
        """Does nothing: Circus calls it after the reaping, and would terminate the process."""

    @property
    def state(self) -> str:
        """One of `WORKER_STATES`."""
        if self.stopping:
            return "draining"
        if not self.was_ready:
            return "starting"
        return "unhealthy" if self.unwell else "ready"

    @property
    def lived(self) -> float:
        """Seconds since it was started."""
        return self._loop.time() - self.started_at


def _set(event: asyncio.Future[None]) -> None:
    if not event.done():
        event.set_result(None)
