"""One worker process: spawned without a shell, with nothing but its own descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from circus.process import RUNNING, UNEXISTING, Process

from servd.host.identity import running_as
from servd.supervisor.circus.launch import Launch
from servd.supervisor.io.channel import WorkerChannel
from servd.supervisor.io.notify_socket import NotifySocket
from servd.supervisor.io.output import LastLines, OutputPipe
from servd.wire.shm_counters import CounterView

_KEPT_FIELDS = frozenset({"STATUS", "ERRNO", "BUSERROR", "MAINPID"})
_LONGEST_FIELD = 1024

WORKER_STATES = ("starting", "ready", "unhealthy", "draining")

RECYCLING = frozenset({"max_requests", "stuck"})
"""What a worker may give as the reason for which it should be replaced."""


@dataclass(slots=True)
class WorkerReport:
    """What a process said of itself over its channel before it ended."""

    failed: str = ""
    missing_variable: str | None = None
    draining: dict[str, int] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)

    def take(self, fields: Mapping[str, str]) -> None:
        """Keeps those fields of a notification that somebody may want to see."""
        self.fields |= {n: fields[n][:_LONGEST_FIELD] for n in _KEPT_FIELDS & fields.keys()}


class ProcessListener(Protocol):
    """What a process tells on its own initiative."""

    def recycle_requested(self, process: WorkerProcess) -> None:
        """The worker asks to be replaced: `recycle_reason`."""


class WorkerProcess(Process):  # type: ignore[misc]  # Circus has no types
    """A worker as Circus knows it, started and ended our way.

    Futures tell what has happened: `exited` (reaped, with the exit status), `notified_ready`
    (READY=1 came), `ready` (it counts as ready), `stopped_accepting` (STOPPING=1 came) and
    `channel_closed` (a command became its program). `last_sign` is the loop's time of the last
    WATCHDOG=1. `unwell` says why it is not healthy, `kill_reason` why we killed it, `stop_reason`
    why it is asked to stop, `recycle_reason` why it asks to be replaced.
    """

    _worker: subprocess.Popen[bytes]
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
        self.last_lines = LastLines()
        self.report = WorkerReport()
        self.was_ready = False
        self.unwell = ""
        self.kill_reason = ""
        self.stop_reason = ""
        self.last_sign: float | None = None
        self.recycle_reason = ""
        self.counters: CounterView | None = None
        self.started_at = loop.time()
        self.since = launch.context.now()
        self._listener = listener
        self._loop = loop
        self._pipes: list[OutputPipe] = []
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
        """Starts the process and tells it what to do.

        Raises OSError when the system cannot start it (the message names the cause).
        """
        launch, identity = self.launch, self.launch.plan.identity
        owner = identity.account.uid if identity.account is not None else None
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as handed:
            notify = NotifySocket(launch.context.notify_folder, owner, self._notified)
            undo.callback(notify.close)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            undo.callback(ours.close)
            handed.callback(theirs.close)
            outputs: dict[str, tuple[int, int]] = {}
            for stream in launch.streams:
                outputs[stream] = reading, writing = os.pipe2(os.O_CLOEXEC)
                undo.callback(os.close, reading)
                handed.callback(os.close, writing)
            inherited: dict[str, int] = {}
            if launch.plan.app is not None:
                inherited["events"] = outputs["events"][1]
                os.set_blocking(inherited["events"], False)
                inherited["counters"], self.counters = launch.context.counters.open(
                    launch.plan.name
                )
                undo.callback(launch.context.counters.close, launch.plan.name, self.counters)
                handed.callback(os.close, inherited["counters"])
            sockets = [sock.fileno() for _, sock in launch.sockets]
            self._worker = subprocess.Popen(
                launch.argv(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=outputs["stdout"][1],
                stderr=outputs["stderr"][1],
                pass_fds=[theirs.fileno(), *sockets, *inherited.values()],
                cwd=launch.plan.directory,
                env=launch.environment(self.slot, notify.path),
                start_new_session=True,
                umask=identity.umask if identity.umask is not None else -1,
                **running_as(identity.account, identity.gid),
            )
            undo.pop_all()
        launch.context.registry.add(self.pid)
        self._notify = notify
        self._channel = WorkerChannel(ours, self._said, self._hung_up)
        self._open_pipes({stream: reading for stream, (reading, _) in outputs.items()})
        try:
            self._raise_limits()
            self._channel.tell(launch.spec(self.slot, inherited).to_json())
        except OSError:
            self.signal_group(signal.SIGKILL)
            self._finish(self._worker.wait())
            raise

    def _raise_limits(self) -> None:
        """Lifts hard limits where the config asks for more than the daemon's own: the process sets
        its limits itself, but only the daemon may have the right to go higher.
        """
        for name, value in self.launch.plan.identity.rlimits:
            kind = getattr(resource, f"RLIMIT_{name.upper()}", None)
            highest = resource.getrlimit(kind)[1] if kind is not None else -1
            if kind is not None and highest != -1 and (value == -1 or value > highest):
                with contextlib.suppress(ValueError, OSError):  # the process says what is wrong
                    resource.prlimit(self.pid, kind, (value, value))

    def _open_pipes(self, descriptors: Mapping[str, int]) -> None:
        identity = {
            "service": self.launch.plan.name,
            "worker": self.slot,
            "pid": self.pid,
            "generation": self.launch.generation,
        }
        launch = self.launch
        for stream, descriptor in descriptors.items():
            self._pipes.append(
                OutputPipe(
                    descriptor,
                    identity,
                    stream,
                    self.last_lines,
                    launch.context.sink,
                    launch.context.now,
                )
            )

    def _notified(self, fields: dict[str, str]) -> None:
        self.report.take(fields)
        if fields.get("WATCHDOG") == "1":
            self.last_sign = self._loop.time()
        if fields.get("READY") == "1" and not self.notified_ready.done():
            self.notified_ready.set_result(None)
        if fields.get("STOPPING") == "1" and not self.stopped_accepting.done():
            self.stopped_accepting.set_result(None)

    def mark_ready(self) -> None:
        """The worker is taken for ready."""
        if not self.ready.done():
            self.was_ready = True
            self.ready.set_result(None)

    def read_notifications(self) -> None:
        """Takes what it has said so far, where the loop has not come to it yet."""
        self._notify.read()

    def _hung_up(self) -> None:
        if not self.channel_closed.done():
            self.channel_closed.set_result(None)

    def _said(self, message: dict[str, Any]) -> None:
        if "draining" in message:
            self.report.draining = {str(k): int(n) for k, n in message["draining"].items()}
        elif message.get("recycle") in RECYCLING:
            self.recycle_reason = message["recycle"]
            self._listener.recycle_requested(self)
        elif "sources" in message and self.launch.context.sources is not None:
            self.launch.context.sources.note(self.launch.plan.name, message["sources"])
        elif "failed" in message:
            self.report.failed = str(message["failed"] or self.report.failed)
            self.report.missing_variable = message.get("missing_variable")
            if message.get("loads_now"):
                self.launch.context.replan(self.launch.plan.name)

    async def ask(self, do: str, *, descriptor: int | None = None, **details: Any) -> None:
        """Asks the worker over its channel to do something, and waits until it has.

        Raises `UnansweredError` when it cannot, is gone, or does not answer in time.
        """
        await self._channel.ask(do, self.exited, descriptor=descriptor, **details)

    async def wait_stopped_accepting(self) -> None:
        """Returns once the worker accepts no more: it said so, or has ended."""
        waited: set[asyncio.Future[Any]] = {self.stopped_accepting, self.exited}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)

    def reap(self) -> int | None:
        """The exit status if the process has ended, else None; its group is ended with it.

        The group is signalled while the dead process still holds its id, so that no stranger with
        a recycled id is hit.
        """
        if self._worker.returncode is not None:
            return self._worker.returncode
        try:
            peeked = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            peeked = None
            self._worker.poll()
            if self._worker.returncode is None:
                return None
        else:
            if peeked is None:
                return None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        status = self._worker.wait()
        self._finish(status)
        return status

    def _finish(self, status: int) -> None:
        """Takes what it had still to say, and gives everything back. Whatever fails in between,
        `exited` is done in the end: others wait for it.
        """
        with contextlib.ExitStack() as steps:  # carried out from the last to the first
            steps.callback(self._has_exited, status)
            steps.callback(self.launch.context.registry.remove, self.pid)
            if self.counters is not None:
                steps.callback(
                    self.launch.context.counters.close, self.launch.plan.name, self.counters
                )
            steps.callback(self._notify.close)
            steps.callback(self._notify.read)
            steps.callback(self._channel.close)
            for pipe in reversed(self._pipes):
                steps.callback(pipe.close)
                steps.callback(pipe.drain)

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
            if not waited.done():
                waited.cancel()

    def signal_group(self, number: int) -> None:
        """Sends a signal to the process and everything it started in its group."""
        if self._worker.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def signal_self(self, number: int) -> None:
        """Sends a signal to the process alone."""
        if self._worker.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    @property
    def status(self) -> int:
        """Circus's word for whether it runs, from our own reaping instead of psutil's scan."""
        return UNEXISTING if self._worker.returncode is not None else RUNNING  # type: ignore[no-any-return]

    def is_alive(self) -> bool:
        """Whether it has not been reaped yet. (Circus's own polls, and steals the exit status.)"""
        return self._worker.returncode is None

    def stop(self) -> None:
        """Nothing is left to be done for a process that was reaped; Circus would terminate it."""

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
