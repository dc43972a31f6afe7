"""The components of a daemon as far as an upgrade uses them: they write down what is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any, cast

from servd.core.handed_socket import HandedSocket
from servd.daemon.components import DaemonComponents
from servd.daemon.lifecycle import Lifecycle
from servd.daemon.reload.queue import ReloadQueue
from servd.plan.model import Plan
from servd.plan.overrides import Override
from servd.supervisor.gpus import GpuRoom

from support.config_texts import loaded_text, plan_text

TEXT = """
[services.web]
command = ["sleep", "9"]
workers = 2
"""


class FakeComponents:
    """A daemon that runs. `told` is what was done, in order; `fails` names a call to raise in."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self.lifecycle = Lifecycle()
        self.lifecycle.has_started = True
        self.queue = ReloadQueue(self.lifecycle.stopping, lambda: "now")
        loaded = loaded_text(TEXT)
        self.reloader = SimpleNamespace(
            turn=asyncio.Lock(),
            is_busy=False,
            begin=self._begin,
            desired=SimpleNamespace(
                loaded=loaded,
                plan=plan_text(TEXT),
                revision=5,
                overrides={"web": Override(4), "gone": Override(1)},
                declared=Plan(),
            ),
        )
        self.supervisor = SimpleNamespace(
            numbers={"web": 3},
            services={},
            leaving=set(),
            context=SimpleNamespace(workers=SimpleNamespace(gpus=GpuRoom())),
            release=self._release,
            stop=self._stop,
            kill=self._kill,
        )
        self.admin = SimpleNamespace(
            handed=lambda: [HandedSocket("admin", 6)],
            hand_over=lambda keys: self.tell(f"admin handed over {sorted(keys)}"),
            own=lambda: self.tell("admin owned"),
            stop=self._admin_stop,
        )
        self.resources = SimpleNamespace(
            folder=SimpleNamespace(
                path="/run/x",
                lock=3,
                made=[],
                private="",
                hand_over=lambda: self.tell("folder handed over"),
                own=lambda: self.tell("folder owned"),
                remove_sockets_but=lambda ours: None,
            ),
            pool=SimpleNamespace(
                bound={
                    "a": SimpleNamespace(inherited=False, handed=lambda: HandedSocket("a", 4)),
                    "fd:b": SimpleNamespace(inherited=True, handed=None),
                },
                inherited={"b": [8]},
                chosen={},
                hand_over=lambda keys: self.tell(f"sockets handed over {sorted(keys)}"),
                reclaim=lambda: self.tell("sockets reclaimed"),
            ),
            systemd=SimpleNamespace(
                environ={"NOTIFY": "1"},
                mute=True,
                replaced_by=lambda pid: self.tell(f"replaced by {pid}"),
                continues=lambda: self.tell("goes on"),
            ),
            store=SimpleNamespace(stored={}),
        )
        self.begun = asyncio.Event()
        self.take_over: Callable[[], Awaitable[None]] | None = None

    @property
    def components(self) -> DaemonComponents:
        return cast("DaemonComponents", self)

    def tell(self, call: str) -> None:
        self.told.append(call)
        if call in self.fails:
            raise self.fails[call]

    async def _begin(self, mode: Any) -> None:
        self.tell("begin")
        self.begun.set()
        if self.take_over is not None:
            await self.take_over()

    async def _release(self, names: Collection[str], reason: str) -> None:
        self.tell(f"release {sorted(names)}: {reason}")

    async def _stop(self, seconds: float, reason: str, on_end: Callable[[str], None]) -> bool:
        self.tell(f"stop: {reason}")
        on_end("web")
        return True

    def _kill(self) -> None:
        self.tell("kill")

    async def _admin_stop(self) -> None:
        self.tell("admin stopped")


class FakeNewDaemon:
    """The new daemon, as it is started and spoken to; `answers` are awaited in its place."""

    pid = 99

    def __init__(self, room: FakeComponents) -> None:
        self.room = room
        self.answers: dict[str, Callable[[], Awaitable[Any]]] = {}
        self.state: Any = None
        self.environ: Mapping[str, str] = {}

    async def start(self, state: Any, environ: Mapping[str, str]) -> Any:
        self.state, self.environ = state, environ
        self.room.tell("start")
        return self

    async def ready(self, seconds: float) -> Any:
        return await self.answers["ready"]()

    async def confirms(self) -> None:
        self.room.tell("confirms")

    async def heed(self, force_stop: Callable[[], None]) -> None:
        force_stop()

    def tell(self, **message: Any) -> None:
        self.room.tell(f"said {message}")

    async def dismiss(self) -> None:
        self.room.tell("dismissed")
