"""One worker process: spawned without a shell, with nothing but its own descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from circus.process import RUNNING, UNEXISTING, Process

from servd.host.identity import running_as
from servd.plan.gpus import VISIBLE
from servd.plan.model import ServicePlan
from servd.supervisor.io.channel import WorkerChannel
from servd.supervisor.io.notify_socket import NotifySocket
from servd.supervisor.io.output import LastLines, OutputPipe
from servd.wire import names
from servd.wire.shm_counters import CounterView
from servd.wire.worker_spec import SocketSpec, WorkerSpec

if TYPE_CHECKING:
    from servd.supervisor.context import SupervisorContext

_PROGRAM = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "worker", "program.py"
)


@dataclass(frozen=True, slots=True)
class Launch:
    """What a service's processes are started from: the plan, and what only the daemon has.

    Without `accept`, workers of an app are ready before they accept.
    """

    plan: ServicePlan
    generation: int
    sockets: tuple[tuple[SocketSpec, socket.socket], ...]
    engine: SupervisorContext
    accept: bool = True

    @property
    def accepts_at_once(self) -> bool:
        """Whether a worker accepts as soon as its app has started: one that is asked for its health
        has to be well first.
        """
        return self.accept and (self.plan.app is None or self.plan.health is None)


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


class WorkerProcess(Process):  # type: ignore[misc]  # Circus has no types
    """A worker as Circus knows it, started and ended our way.

    `exited` is done, with the exit status, once the process has been reaped; `says_ready` once it
    said READY=1; `ready` once it is taken for ready; `closed` once it said STOPPING=1, that is,
    accepts no more; `left_alone` once it hung up its channel, as a command does when it becomes its
    program. `last_sign` is when it last said WATCHDOG=1 (of the loop's clock). `unwell` says why
    it is not healthy, `ended_for` why we ended it, `leaves_for` why it is asked to end, `due` why
    it asks to be replaced, which `on_recycle` is told as well.
    """

    _worker: subprocess.Popen[bytes]
    __hash__ = object.__hash__  # Circus compares by identity, but forgets the hash

    def __init__(self, launch: Launch, slot: int, watcher: Any) -> None:
        loop = asyncio.get_running_loop()
        self.launch = launch
        self.slot = slot
        self.exited: asyncio.Future[int] = loop.create_future()
        self.says_ready: asyncio.Future[None] = loop.create_future()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.left_alone: asyncio.Future[None] = loop.create_future()
        self.last_lines = LastLines()
        self.report = WorkerReport()
        self.was_ready = False
        self.unwell = ""
        self.ended_for = ""
        self.leaves_for = ""
        self.last_sign: float | None = None
        self.due = ""
        self.on_recycle: Callable[[str], None] = _nobody
        self.counters: CounterView | None = None
        self.started_at = loop.time()
        self.since = launch.engine.now()
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
            notify = NotifySocket(launch.engine.notify_folder, owner, self._notified)
            undo.callback(notify.close)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            undo.callback(ours.close)
            handed.callback(theirs.close)
            outputs: dict[str, tuple[int, int]] = {}
            for stream in self._streams:
                outputs[stream] = reading, writing = os.pipe2(os.O_CLOEXEC)
                undo.callback(os.close, reading)
                handed.callback(os.close, writing)
            inherited: dict[str, int] = {}
            if launch.plan.app is not None:
                inherited["events"] = outputs["events"][1]
                os.set_blocking(inherited["events"], False)
                inherited["counters"], self.counters = launch.engine.counts.open(launch.plan.name)
                undo.callback(launch.engine.counts.close, launch.plan.name, self.counters)
                handed.callback(os.close, inherited["counters"])
            sockets = [sock.fileno() for _, sock in launch.sockets]
            self._worker = subprocess.Popen(
                self._argv(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=outputs["stdout"][1],
                stderr=outputs["stderr"][1],
                pass_fds=[theirs.fileno(), *sockets, *inherited.values()],
                cwd=launch.plan.directory,
                env=self._environment(notify.path),
                start_new_session=True,
                umask=identity.umask if identity.umask is not None else -1,
                **running_as(identity.account, identity.gid),
            )
            undo.pop_all()
        launch.engine.roster.add(self.pid)
        self._notify = notify
        self._channel = WorkerChannel(ours, self._said, self._hung_up)
        self._open_pipes({stream: reading for stream, (reading, _) in outputs.items()})
        try:
            self._raise_limits()
            self._channel.tell(self._spec(inherited).to_json())
        except OSError:
            self.signal_group(signal.SIGKILL)
            self._finish(self._worker.wait())
            raise

    @property
    def _streams(self) -> tuple[str, ...]:
        """Pipes that it writes to; servd's worker has one more, for finished events."""
        streams = ("stdout", "stderr")
        return streams if self.launch.plan.app is None else (*streams, "events")

    def _argv(self, channel: int) -> list[str]:
        if self.launch.plan.app is not None:
            return [*self.launch.plan.argv_of("servd.worker"), str(channel)]
        return [self.launch.plan.python, "-I", "-S", _PROGRAM, str(channel)]

    def _environment(self, notify: str) -> Mapping[str, str]:
        gpus = self.launch.plan.gpus
        visible = {VISIBLE: ",".join(gpus[self.slot % len(gpus)])} if gpus else {}
        return {
            **self.launch.plan.environment,
            **visible,
            names.WORKER: str(self.slot),
            names.GENERATION: str(self.launch.generation),
            names.NOTIFY_SOCKET: notify,
        }

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

    def _spec(self, inherited: Mapping[str, int]) -> WorkerSpec:
        """What the process is told, beside its environment."""
        plan = self.launch.plan
        identity = plan.identity
        affinity = identity.affinity
        return WorkerSpec(
            service=plan.name,
            worker=self.slot,
            generation=self.launch.generation,
            stop_signal=plan.stop_signal,
            sockets=tuple(
                SocketSpec(item.name, sock.fileno(), item.tls) for item, sock in self.launch.sockets
            ),
            app=plan.app,
            argv=tuple(a.replace("{worker}", str(self.slot)) for a in plan.command),
            rlimits=identity.rlimits,
            cpus=affinity[self.slot % len(affinity)] if affinity else (),
            no_new_privs=identity.account is not None or identity.gid is not None,
            tls=plan.tls,
            accept=self.launch.accepts_at_once,
            watchdog=plan.watchdog,
            tells_sources=self.launch.engine.sources is not None,
            **inherited,
        )

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
                    launch.engine.sink,
                    launch.engine.now,
                )
            )

    def _notified(self, fields: dict[str, str]) -> None:
        self.report.take(fields)
        if fields.get("WATCHDOG") == "1":
            self.last_sign = self._loop.time()
        if fields.get("READY") == "1" and not self.says_ready.done():
            self.says_ready.set_result(None)
        if fields.get("STOPPING") == "1" and not self.closed.done():
            self.closed.set_result(None)

    def mark_ready(self) -> None:
        """The worker is taken for ready."""
        if not self.ready.done():
            self.was_ready = True
            self.ready.set_result(None)

    def listen_for_signs(self) -> None:
        """Takes what it has said so far, where the loop has not come to it yet."""
        self._notify.read()

    def _hung_up(self) -> None:
        if not self.left_alone.done():
            self.left_alone.set_result(None)

    def _said(self, message: dict[str, Any]) -> None:
        if "draining" in message:
            self.report.draining = {str(k): int(n) for k, n in message["draining"].items()}
        elif message.get("recycle") in RECYCLING:
            self.due = message["recycle"]
            self.on_recycle(self.due)
        elif "sources" in message and self.launch.engine.sources is not None:
            self.launch.engine.sources.note(self.launch.plan.name, message["sources"])
        elif "failed" in message:
            self.report.failed = str(message["failed"] or self.report.failed)
            self.report.missing_variable = message.get("missing_variable")
            if message.get("loads_now"):
                self.launch.engine.plan_anew(self.launch.plan.name)

    async def ask(self, do: str, *, descriptor: int | None = None, **details: Any) -> None:
        """Asks the worker over its channel to do something, and waits until it has.

        Raises `UnansweredError` when it cannot, is gone, or does not answer in time.
        """
        await self._channel.ask(do, self.exited, descriptor=descriptor, **details)

    async def stops_accepting(self) -> None:
        """Returns once the worker accepts no more: it said so, or has ended."""
        waited: set[asyncio.Future[Any]] = {self.closed, self.exited}
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
            steps.callback(self.launch.engine.roster.remove, self.pid)
            if self.counters is not None:
                steps.callback(
                    self.launch.engine.counts.close, self.launch.plan.name, self.counters
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
        for waited in (self.says_ready, self.ready, self.closed, self.left_alone):
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


def _nobody(_: str) -> None:
    """Nobody replaces it."""
