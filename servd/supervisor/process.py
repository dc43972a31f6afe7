"""One worker process: spawned without a shell, with nothing but its own descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from circus.process import RUNNING, UNEXISTING, Process

from servd.plan.model import ServicePlan
from servd.supervisor.notify_socket import NotifySocket
from servd.supervisor.output import LastLines, OutputPipe, Sink
from servd.wire import names
from servd.wire.worker_spec import SocketSpec, WorkerSpec

_PROGRAM = os.path.join(os.path.dirname(os.path.dirname(__file__)), "worker", "program.py")


@dataclass(frozen=True, slots=True)
class Launch:
    """What a service's processes are started from: the plan, and what only the daemon has.

    Without `accept`, workers of an app are ready before they accept.
    """

    plan: ServicePlan
    generation: int
    sockets: tuple[tuple[SocketSpec, socket.socket], ...]
    notify_folder: str
    sink: Sink
    now: Callable[[], str]
    accept: bool = True


@dataclass(slots=True)
class Report:
    """What a process said of itself over its channel before it ended."""

    failed: str = ""
    missing_variable: str | None = None
    draining: dict[str, int] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)


ANSWER_SECONDS = 10.0
"""How long a worker may take to do what it is asked to over its channel."""


class UnansweredError(Exception):
    """A worker did not do what it was asked to; the message says why."""


class WorkerProcess(Process):  # type: ignore[misc]  # Circus has no types
    """A worker as Circus knows it, started and ended our way.

    `exited` is done, with the exit status, once the process has been reaped; `ready` once it said
    READY=1; `closed` once it said STOPPING=1, that is, accepts no more; `left_alone` once it hung
    up its channel, as a command does when it becomes its program.
    """

    _worker: subprocess.Popen[bytes]
    __hash__ = object.__hash__  # Circus compares by identity, but forgets the hash

    def __init__(self, launch: Launch, slot: int, watcher: Any) -> None:
        loop = asyncio.get_running_loop()
        self.launch = launch
        self.slot = slot
        self.exited: asyncio.Future[int] = loop.create_future()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.left_alone: asyncio.Future[None] = loop.create_future()
        self.last_lines = LastLines()
        self.report = Report()
        self.was_ready = False
        self.started_at = loop.time()
        self.since = launch.now()
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._asked = 0
        self._loop = loop
        self._buffer = b""
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
        plan = self.launch.plan
        identity = plan.identity
        owner = identity.account.uid if identity.account is not None else None
        with contextlib.ExitStack() as undo:
            notify = NotifySocket(self.launch.notify_folder, owner, self._notified)
            undo.callback(notify.close)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            undo.callback(ours.close)
            with theirs, contextlib.ExitStack() as pipes:
                outputs: list[tuple[int, int]] = []
                for _ in ("stdout", "stderr"):
                    reading, writing = os.pipe2(os.O_CLOEXEC)
                    undo.callback(os.close, reading)
                    pipes.callback(os.close, writing)
                    outputs.append((reading, writing))
                inherited = [sock.fileno() for _, sock in self.launch.sockets]
                self._worker = subprocess.Popen(
                    self._argv(theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=outputs[0][1],
                    stderr=outputs[1][1],
                    pass_fds=[theirs.fileno(), *inherited],
                    cwd=plan.directory,
                    env=self._environment(notify.path),
                    start_new_session=True,
                    umask=identity.umask if identity.umask is not None else -1,
                    **self._user(),
                )
            undo.pop_all()
        self._notify, self._channel = notify, ours
        self._open_pipes([reading for reading, _ in outputs])
        ours.setblocking(False)
        self._loop.add_reader(ours.fileno(), self._heard)
        try:
            self._raise_limits()
            self._tell()
        except OSError:
            self.signal_group(signal.SIGKILL)
            self._finish(self._worker.wait())
            raise

    def _argv(self, channel: int) -> list[str]:
        if self.launch.plan.app is not None:
            return [self.launch.plan.python, "-P", "-m", "servd.worker", str(channel)]
        return [self.launch.plan.python, "-I", "-S", _PROGRAM, str(channel)]

    def _environment(self, notify: str) -> Mapping[str, str]:
        return {
            **self.launch.plan.environment,
            names.WORKER: str(self.slot),
            names.GENERATION: str(self.launch.generation),
            names.NOTIFY_SOCKET: notify,
        }

    def _user(self) -> dict[str, Any]:
        """Popen's arguments for whom the process runs as; only root can choose."""
        identity = self.launch.plan.identity
        if os.geteuid() != 0:
            return {}
        options: dict[str, Any] = {}
        if identity.gid is not None:
            options |= {"group": identity.gid, "extra_groups": []}
        if identity.account is not None:
            options |= {"user": identity.account.uid, "extra_groups": list(identity.account.groups)}
        return options

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

    def _tell(self) -> None:
        """Hands the spec over. The channel holds more than a spec, so this does not wait."""
        plan = self.launch.plan
        affinity = plan.identity.affinity
        arguments = tuple(a.replace("{worker}", str(self.slot)) for a in plan.command)
        spec = WorkerSpec(
            service=plan.name,
            worker=self.slot,
            generation=self.launch.generation,
            stop_signal=plan.stop_signal,
            sockets=tuple(
                SocketSpec(item.name, sock.fileno(), item.tls) for item, sock in self.launch.sockets
            ),
            app=plan.app,
            argv=arguments,
            rlimits=plan.identity.rlimits,
            cpus=affinity[self.slot % len(affinity)] if affinity else (),
            tls=plan.tls,
            accept=self.launch.accept,
        )
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._channel.setblocking(True)
            self._channel.settimeout(5.0)
            self._channel.sendall(spec.to_json().encode() + b"\n")
        self._channel.setblocking(False)

    def _open_pipes(self, descriptors: list[int]) -> None:
        identity = {
            "service": self.launch.plan.name,
            "worker": self.slot,
            "pid": self.pid,
            "generation": self.launch.generation,
        }
        for descriptor, stream in zip(descriptors, ("stdout", "stderr"), strict=True):
            launch = self.launch
            self._pipes.append(
                OutputPipe(descriptor, identity, stream, self.last_lines, launch.sink, launch.now)
            )

    def _notified(self, fields: dict[str, str]) -> None:
        self.report.fields |= fields
        if fields.get("READY") == "1":
            self.mark_ready()
        if fields.get("STOPPING") == "1" and not self.closed.done():
            self.closed.set_result(None)

    def mark_ready(self) -> None:
        """The worker is ready, by its own word or by a probe's."""
        if not self.ready.done():
            self.was_ready = True
            self.ready.set_result(None)

    def _heard(self) -> None:
        """Messages of the channel: one line of JSON each."""
        try:
            chunk = self._channel.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._loop.remove_reader(self._channel.fileno())
            if not self.left_alone.done():
                self.left_alone.set_result(None)
            return
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "answer" in message:
            asked = self._answers.get(message["answer"])
            if asked is not None and not asked.done():
                asked.set_result(str(message.get("error") or ""))
        elif "draining" in message:
            self.report.draining = {str(k): int(n) for k, n in message["draining"].items()}
        elif "failed" in message:
            self.report.failed = str(message["failed"] or self.report.failed)
            self.report.missing_variable = message.get("missing_variable")

    async def ask(self, do: str, **details: Any) -> None:
        """Asks the worker over its channel to do something, and waits until it has.

        Raises `UnansweredError` when it cannot, is gone, or does not answer in time.
        """
        self._asked += 1
        number = self._asked
        answer: asyncio.Future[str] = self._loop.create_future()
        self._answers[number] = answer
        try:
            message = {"ask": number, "do": do, **details}
            try:
                self._channel.send(json.dumps(message).encode() + b"\n")
            except OSError:
                raise UnansweredError("it is gone") from None
            waited: set[asyncio.Future[Any]] = {answer, self.exited}
            done, _ = await asyncio.wait(
                waited, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if answer not in done:
                gone = self.exited in done
                raise UnansweredError("it ended" if gone else f"no answer in {ANSWER_SECONDS:g} s")
            if answer.result():
                raise UnansweredError(answer.result())
        finally:
            del self._answers[number]

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
        for pipe in self._pipes:
            pipe.drain()
            pipe.close()
        while self._channel.fileno() >= 0:
            before = self._buffer
            self._heard()
            if self._buffer == before:
                break
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        self._notify.read()
        self._notify.close()
        if not self.exited.done():
            self.exited.set_result(status)
        for waited in (self.ready, self.closed, self.left_alone):
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
    def lived(self) -> float:
        """Seconds since it was started."""
        return self._loop.time() - self.started_at
