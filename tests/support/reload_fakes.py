"""A reloader between fakes that write down what is asked of them, and in which order."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection, Container
from types import SimpleNamespace
from typing import Any, cast

from servd.config.load import Loaded
from servd.config.model import Config
from servd.core.diagnostics import Diagnostic
from servd.daemon.reload.desired import DesiredState
from servd.daemon.reload.planner import Planned
from servd.daemon.reload.queue import ReloadQueue
from servd.daemon.reload.reloader import Reloader
from servd.daemon.reload.request import ReloadRequest
from servd.daemon.reload.settings import SettingsChange
from servd.plan.change import Change
from servd.plan.model import Plan
from servd.supervisor.apply.mode import ApplyMode
from servd.supervisor.found_addresses import AddressFinder
from servd.supervisor.sockets.pool import SocketPool
from servd.supervisor.worker_registry import WorkerRegistry

ROLL = Change("web", "roll")
BEGUN = "at the start"


class FakeAddresses(AddressFinder):
    """Writes down whose addresses are looked at; each of `finds` is the outcome of a look."""

    def __init__(self) -> None:
        super().__init__({}, SocketPool(), WorkerRegistry())
        self.looks: list[Container[str] | None] = []
        self.finds: list[bool] = []

    async def look(self, names: Container[str] | None = None) -> bool:
        self.looks.append(names)
        return bool(self.finds and self.finds.pop(0))


class FakeRoom:
    """Everything around one reloader. `told` is what happened, in order; what stands in `fails`
    under the name of a call is raised by it.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self.config = Config()
        self.changes: tuple[Change, ...] = ()
        self.diagnostics: tuple[Diagnostic, ...] = ()
        self.requests: list[ReloadRequest] = []
        self.modes: list[ApplyMode] = []
        self.applied: list[Collection[Change]] = []
        self.applying = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.plan = Plan()
        self.services: dict[str, Any] = {}
        self.context = SimpleNamespace(stopping=asyncio.Event())
        self.queue = ReloadQueue(self.context.stopping, self.now)
        self.addresses = FakeAddresses()
        self._time = 0
        first = DesiredState(loaded(Config()), Plan(), {}, Plan(runtime_dir="/run/x"), BEGUN)
        self.reloader = Reloader(
            desired=first,
            read=self.read,
            planner=cast("Any", self),
            queue=self.queue,
            supervisor=cast("Any", self),
            settings=self,
            observer=self,
            now=self.now,
            boot="boot",
        )
        self.reloader._begun.set()

    def now(self) -> str:
        self._time += 1
        return f"t{self._time}"

    def tell(self, call: str) -> None:
        self.told.append(call)
        if call in self.fails:
            raise self.fails[call]

    # the planner

    def read(self) -> Loaded:
        self.tell("read")
        return dataclasses.replace(loaded(self.config), diagnostics=self.diagnostics)

    def next(self, seen: Loaded, desired: DesiredState, request: ReloadRequest) -> Planned:
        self.tell("plan")
        self.requests.append(request)
        plan = Plan(runtime_dir=f"/run/{len(self.requests)}")
        return Planned(dataclasses.replace(desired, loaded=seen, plan=plan), self.changes)

    # the supervisor

    async def apply(
        self, changes: Collection[Change], plan: Plan, mode: ApplyMode
    ) -> list[asyncio.Task[Any]]:
        self.tell("apply")
        self.applied.append(changes)
        self.modes.append(mode)
        self.applying.set()
        await self.goes_on.wait()
        return []

    # the daemon's own settings

    async def prepare(self, before: Config, after: Config) -> SettingsChange:
        self.tell("prepare")
        return SettingsChange([self._step("commit")], [self._step("undo")])

    def _step(self, call: str) -> Callable[[], Any]:
        async def step() -> None:
            self.tell(call)

        return step

    # the observer

    def before_reading(self) -> None:
        self.tell("before reading")

    def before_applying(self, plan: Plan) -> None:
        pass

    def watch(self, seen: Loaded, desired: DesiredState) -> None:
        self.tell("watch")

    def after_reload(self, seen: Loaded, desired: DesiredState) -> None:
        self.tell("after reload")


def loaded(config: Config) -> Loaded:
    return Loaded(config=config, path="servd.toml")
