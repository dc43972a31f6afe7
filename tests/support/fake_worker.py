"""Workers that are no processes: a real supervisor runs them, on a virtual clock.

A test says how each behaves (`Script`); they answer signals, messages and reaping as real ones do.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import pytest

from servd.config.find import Disk, Source
from servd.config.load import load_sources
from servd.core.events import Event
from servd.plan.build import build_loaded
from servd.plan.diff import diff
from servd.plan.gpus import GpuInventory, with_gpus
from servd.plan.host import Host
from servd.plan.model import Plan
from servd.supervisor.apply.mode import FIRST_START, RELOAD, ApplyMode
from servd.supervisor.circus.arbiter import ServdArbiter
from servd.supervisor.circus.launch import Launch
from servd.supervisor.circus.process import ProcessListener, WorkerProcess
from servd.supervisor.circus.start_limiter import StartLimiter
from servd.supervisor.circus.watcher import ServiceWatcher
from servd.supervisor.circus.worker_context import WorkerContext
from servd.supervisor.context import SupervisorContext
from servd.supervisor.counters import CounterRegistry
from servd.supervisor.generation import Generation
from servd.supervisor.gpus import GpuRoom
from servd.supervisor.health.start_limit import GpuMemory
from servd.supervisor.io.channel import ANSWER_SECONDS, UnansweredError
from servd.supervisor.io.messages import WorkerMessage
from servd.supervisor.service import ManagedService
from servd.supervisor.sockets.pool import SocketPool
from servd.supervisor.supervisor import Supervisor
from servd.supervisor.worker_group import WorkerGroup
from servd.supervisor.worker_registry import WorkerRegistry
from servd.wire.gpus import Gpu

from support.virtual_time import now

_PIDS = itertools.count(5_000_000)  # higher than any pid of Linux

NEVER = None


@dataclass(frozen=True, slots=True)
class Script:
    """How a worker behaves. Times are virtual seconds, from its start or from the signal.

    `ready_after` is when it says READY=1 (or becomes its program), `dies_after` when it ends by
    itself, with `status` and having said that it `failed`. On a stop signal it accepts no more
    after `closes_after` and ends after `drains_for` (NEVER: not by itself). `answers` is what it
    answers to each request: "" for done, NEVER for silence. `signs_every` is the interval of its
    WATCHDOG=1. Where it is not `spawned`, the system cannot start it. `aborts`: SIGABRT ends it.
    """

    ready_after: float | None = 1.0
    dies_after: float | None = NEVER
    status: int = 1
    failed: str = ""
    closes_after: float = 0.0
    drains_for: float | None = 0.5
    answers: str | None = ""
    signs_every: float | None = NEVER
    signs_until: float = float("inf")
    spawned: OSError | None = None
    aborts: bool = True


class Noted(NamedTuple):
    """Something that a worker did."""

    at: float
    what: str
    worker: FakeWorker


class _Program:
    """Stands for `subprocess.Popen`."""

    def __init__(self) -> None:
        self.pid = next(_PIDS)
        self.returncode: int | None = None


class FakeWorker(WorkerProcess):
    """A worker without a process.

    `accepting` is whether a connection could reach it, `asked` what it was asked to do, `signals`
    what it was sent.
    """

    def __init__(
        self, fakes: Fakes, launch: Launch, slot: int, watcher: Any, listener: ProcessListener
    ) -> None:
        self.fakes = fakes
        self.script = fakes.script_of(launch, slot)
        self.accepting = False
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.signals: list[tuple[float, signal.Signals]] = []
        self._status: int | None = None
        self._timers: list[asyncio.TimerHandle] = []
        super().__init__(launch, slot, watcher, listener)

    def __repr__(self) -> str:
        return f"<{self.launch.plan.name}.{self.slot} of generation {self.launch.generation}>"

    # its life

    def spawn(self) -> None:
        script = self.script
        if script.spawned is not None:
            raise script.spawned
        self._worker = cast("Any", _Program())
        self.launch.context.registry.add(self.pid, self.launch.plan, "")
        self.fakes.workers.append(self)
        self.note("started")
        if script.ready_after is not None:
            self.later(script.ready_after, self.become_ready)
        if script.dies_after is not None:
            self.later(script.dies_after, self.fail)
        if script.signs_every is not None:
            self.later(script.signs_every, self._sign)

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Does something after a while, if it still lives then."""
        self._timers.append(self._loop.call_later(seconds, act))

    def note(self, what: str) -> None:
        self.fakes.notes.append(Noted(now(), what, self))

    def become_ready(self) -> None:
        """Says READY=1; a command has become its program."""
        if self.launch.plan.app is None:
            self._hung_up()
        if self.launch.plan.ready.mode == "notify":
            self._notified({"READY": "1"})
        if self.launch.plan.app is None or self.launch.accepts_at_once:
            self._accept()

    def _accept(self) -> None:
        self.accepting = True
        self.note("accepts")

    def _sign(self) -> None:
        self._notified({"WATCHDOG": "1"})
        assert self.script.signs_every is not None
        if now() + self.script.signs_every <= self.script.signs_until:
            self.later(self.script.signs_every, self._sign)

    def fail(self) -> None:
        """Ends by itself, as its script says."""
        if self.script.failed:
            self._said(WorkerMessage(failed=self.script.failed))
        self.die(self.script.status)

    def ask_to_be_recycled(self, reason: str = "max_requests") -> None:
        self._said(WorkerMessage.model_validate({"recycle": reason}))

    def report_draining(self, requests: int) -> None:
        self._said(WorkerMessage(draining={"request": requests}))

    def die(self, status: int) -> None:
        """Ends; the arbiter hears of it as by SIGCHLD."""
        if self._status is not None:
            return
        self._status = status
        self.accepting = False
        for timer in self._timers:
            timer.cancel()
        self.note("died")
        self._loop.call_soon(self.watcher.arbiter.manage_watchers)

    # what the supervisor does with it

    def signal_group(self, number: int) -> None:
        self._signalled(number)

    def signal_self(self, number: int) -> None:
        self._signalled(number)

    def _signalled(self, number: int) -> None:
        if self._worker.returncode is not None:
            return
        self.signals.append((now(), signal.Signals(number)))
        if number == signal.SIGKILL:
            self.die(-number)
        elif number == signal.SIGABRT:
            if self.script.aborts:
                self.die(-number)
        else:
            self.note("signalled")
            self.later(self.script.closes_after, self._close)
            if self.script.drains_for is not None:
                self.later(self.script.drains_for, lambda: self.die(0))

    def _close(self) -> None:
        self.accepting = False
        self.note("accepts no more")
        self._notified({"STOPPING": "1"})

    async def ask(self, do: str, *, descriptor: int | None = None, **details: Any) -> None:
        self.asked.append((do, details))
        answer = self.script.answers
        if answer is None:
            done, _ = await asyncio.wait({self.exited}, timeout=ANSWER_SECONDS)
            raise UnansweredError("it exited" if done else f"no answer in {ANSWER_SECONDS:g} s")
        await asyncio.sleep(0)
        if answer:
            raise UnansweredError(answer)
        if do == "accept":
            self._accept()
        elif do == "hurry":
            self.later(0.1, lambda: self.die(0))

    def read_notifications(self) -> None:
        """It has been heard already."""

    def reap(self) -> int | None:
        if self._worker.returncode is None and self._status is not None:
            self._worker.returncode = self._status
            self._finish(self._status)
        return self._worker.returncode

    def _finish(self, status: int) -> None:
        self.launch.context.registry.remove(self.pid)
        self.note("reaped")
        self._has_exited(status)

    @property
    def sent(self) -> list[signal.Signals]:
        """The signals that it was sent, in their order."""
        return [number for _, number in self.signals]

    @property
    def orders(self) -> list[str]:
        """What it was asked to do, in its order."""
        return [do for do, _ in self.asked]


@dataclass(slots=True)
class Fakes:
    """All fake workers of a test, how they behave, and what was logged meanwhile.

    `workers` are all that were ever started, `notes` what they did.
    """

    folder: str
    events: list[dict[str, Any]]
    workers: list[FakeWorker] = field(default_factory=list)
    notes: list[Noted] = field(default_factory=list)
    pools: list[SocketPool] = field(default_factory=list)
    gpus: tuple[Gpu, ...] = ()
    """Those that services of the next plans may have."""
    allows_faults: bool = False
    gpu_memory: GpuMemory | None = None
    _scripts: dict[tuple[str, int, int], list[Script]] = field(default_factory=dict)

    # before

    def plays(self, service: str, *scripts: Script, generation: int = 0, slot: int = -1) -> None:
        """The next workers of a service (of one generation, in one slot) behave like this: each
        script is one worker's, the last one that of all others.
        """
        self._scripts[service, generation, slot] = list(scripts)

    def script_of(self, launch: Launch, slot: int) -> Script:
        name, number = launch.plan.name, launch.generation
        for key in ((name, number, slot), (name, number, -1), (name, 0, slot), (name, 0, -1)):
            scripts = self._scripts.get(key)
            if scripts:
                return scripts.pop(0) if len(scripts) > 1 else scripts[0]
        return Script()

    def plan(self, text: str) -> Plan:
        """The plan of a configuration's text."""
        source = Source("servd.toml", text.encode())
        loaded = load_sources([source], "servd.toml", {}, Disk()).require()
        host = Host(cpus=(0, 1), usable_cpus=2, environ={"PATH": "/bin"}, python="/py")
        plan = build_loaded(loaded, host, self.folder)
        there = GpuInventory(tuple(gpu.id for gpu in self.gpus), known=self.gpus)
        return with_gpus(plan, there, Plan()) if self.gpus else plan

    def context(self, limit: int = 100) -> SupervisorContext:
        """What a supervisor needs, with nothing real but the sockets."""
        arbiter, pool = ServdArbiter(lambda: -1), SocketPool()  # not of the kernel's children
        self.pools.append(pool)
        workers = WorkerContext(
            sink=lambda service, line, count: None,
            now=lambda: "2026-01-01T00:00:00Z",
            notify_folder=self.folder,
            environ={},
            registry=WorkerRegistry(""),
            replan=lambda reason: None,
            counters=CounterRegistry(),
            gpus=GpuRoom(arbiter.manage_watchers),
        )
        limiter = StartLimiter(limit, arbiter.manage_watchers)
        return SupervisorContext(arbiter, pool, limiter, workers, gpu_memory=self.gpu_memory)

    async def begin(
        self, text: str, *, accept: bool = True, probation: bool = False, limit: int = 100
    ) -> tuple[Generation, WorkerGroup]:
        """A generation of the only service in `text`, with its workers on their way."""
        (plan,) = self.plan(text).services
        context = self.context(limit)
        generation = ManagedService(plan, context, lambda: 1).new_generation(plan)
        context.arbiter.begin()
        generation.bind()
        await generation.begin(accept=accept, probation=probation)
        assert isinstance(generation.workers, WorkerGroup)
        return generation, generation.workers

    # while it runs

    def of(self, service: str, generation: int = 0, slot: int = -1) -> list[FakeWorker]:
        """The workers of a service (of one generation, in one slot) that were ever started."""
        return [
            worker
            for worker in self.workers
            if worker.launch.plan.name == service
            and generation in (0, worker.launch.generation)
            and slot in (-1, worker.slot)
        ]

    def alive(self, service: str, generation: int = 0) -> list[FakeWorker]:
        return [worker for worker in self.of(service, generation) if worker.is_alive()]

    def accepting(self, service: str) -> list[FakeWorker]:
        return [worker for worker in self.alive(service) if worker.accepting]

    def times(self, service: str, what: str) -> list[float]:
        """When the workers of a service did something."""
        return [n.at for n in self.notes if n.what == what and n.worker.launch.plan.name == service]

    def done(self, *whats: str) -> list[tuple[str, str]]:
        """The service's name and what its worker did, in the order in which it happened."""
        return [(n.worker.launch.plan.name, n.what) for n in self.notes if n.what in whats]

    # afterwards

    def least_accepting(self, service: str, since: float = 0.0) -> int:
        """The fewest workers of a service that accepted at the same time, from `since` on."""
        accepting: set[FakeWorker] = set()
        counts: dict[float, int] = {}
        for at, what, worker in self.notes:
            if worker.launch.plan.name == service:
                if what == "accepts":
                    accepting.add(worker)
                elif what in ("accepts no more", "died"):
                    accepting.discard(worker)
            counts[max(at, since)] = len(accepting)  # moments before `since` give way to it
        return min(count for at, count in counts.items() if at >= since)

    def logged(self, event: Event, **fields: object) -> list[dict[str, Any]]:
        """The events of one kind, with these fields."""
        return [
            entry
            for entry in self.events
            if entry["event"] == event and fields.items() <= entry.items()
        ]

    def states(self, service: str) -> list[str]:
        """The states that a service has been in."""
        return [e["state"] for e in self.events if "state" in e and e["service"] == service]


class Fleet:
    """A real supervisor of fake workers."""

    def __init__(self, fakes: Fakes, limit: int = 100) -> None:
        self.fakes = fakes
        self.context = fakes.context(limit)
        self.supervisor = Supervisor(self.context)

    def __getitem__(self, name: str) -> ManagedService:
        return self.supervisor.services[name]

    async def start(self, text: str) -> dict[str, str]:
        """The first start: returns once it is settled, with what could not start."""
        await self.apply(text, FIRST_START)
        return await self.supervisor.settled()

    async def apply(
        self, text: str, mode: ApplyMode = RELOAD, roll: Collection[str] = ()
    ) -> list[asyncio.Task[Any]]:
        """Makes what runs equal to a configuration."""
        plan = self.fakes.plan(text)
        return await self.supervisor.apply(diff(self.supervisor.plan, plan, roll), plan, mode)

    @property
    def states(self) -> dict[str, str]:
        return {name: service.state for name, service in self.supervisor.services.items()}


def fakes_for(folder: str, monkeypatch: pytest.MonkeyPatch, events: list[Any]) -> Fakes:
    """Has every worker replaced by a fake one, and no jitter in pauses."""
    fakes = Fakes(folder, events)

    def make(_: ServiceWatcher) -> Callable[..., FakeWorker]:
        return lambda *args: FakeWorker(fakes, *args)

    monkeypatch.setattr(ServiceWatcher, "_process_class", property(make))
    monkeypatch.setattr("servd.supervisor.circus.watcher.random.uniform", lambda *_: 0.0)
    monkeypatch.chdir(folder)
    os.makedirs(os.path.join(folder, "s"), exist_ok=True)
    with open(os.path.join(folder, "main.py"), "w", encoding="utf-8") as file:
        file.write("app = None\n")
    return fakes
