"""Replacing this daemon by one that is started anew (SIGUSR2): another version of servd or Python,
with the same sockets and without a lost request.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from servd._version import __version__
from servd.daemon.handover import ByHand, HandedSocket, Handover
from servd.daemon.logs import now
from servd.daemon.parts import Parts
from servd.daemon.reload import ports_of
from servd.daemon.successor import Ready, Successor, UpgradeError
from servd.plan.overrides import RefusedError
from servd.supervisor.succession import before
from servd.supervisor.supervisor import Supervisor

_BEYOND = 60.0
"""Seconds that the new daemon gets beside the time that its services may take to start."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """What became of it: `pid` and `version` are of the daemon that runs now. `last_lines` are what
    a worker wrote last that could not start.
    """

    outcome: Literal["replaced", "failed"]
    at: str
    seconds: float
    pid: int
    version: str
    error: str | None = None
    last_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replaced:
    """What is left to do for a daemon that was replaced by `successor`. It begins with the services
    `at_once`; `closing` the admin API is under way.
    """

    successor: Successor
    at_once: list[str]
    closing: asyncio.Task[None]
    why: str = "servd is replaced"

    async def end(self, supervisor: Supervisor, seconds: float) -> bool:
        """Drains everything and tells the successor of it; whether all ended by themselves."""
        await supervisor.release(self.at_once, self.why)
        self.successor.tell(released=self.at_once)

        def tell(name: str) -> None:
            self.successor.tell(ended=[name])

        return await supervisor.stop(seconds, self.why, tell)


class Upgrades:
    """Attempts to replace a daemon that has these parts, one at a time. `replaced` is there once
    one has come out well: what is left to be done is to drain. `state` is what the daemon does.
    """

    def __init__(self, parts: Parts, state: Callable[[], str], *, is_owned: bool) -> None:
        self.replaced: Replaced | None = None
        self._parts = parts
        self._state = state
        self._is_owned = is_owned
        self._attempt: asyncio.Task[UpgradeReport] | None = None

    def request(self) -> asyncio.Future[UpgradeReport]:
        """Begins one, or joins the one that is under way. Raises `RefusedError`."""
        self._check()
        if self._attempt is None or self._attempt.done():
            self._attempt = asyncio.get_running_loop().create_task(self._upgrade())
        return self._attempt

    def ask(self) -> None:
        """The same for a signal, where there is nobody to be answered but the log."""
        try:
            self.request()
        except RefusedError as error:
            log.error("upgrade refused", error=str(error), hint=error.hint)

    async def stop(self) -> None:
        """Ends an attempt that is under way."""
        if self._attempt is not None and self.replaced is None:
            self._attempt.cancel()
            await asyncio.wait({self._attempt})

    def _check(self) -> None:
        """Raises `RefusedError` where something is in the way of it, with what to do instead."""
        cannot, state = "servd cannot be replaced", self._state()
        if os.getpid() == 1:
            what = "it is the first process of a container"
            raise RefusedError(f"{cannot}: {what}", "restart the container")
        if self._is_owned:
            what = "it belongs to the program that called servd.serve()"
            raise RefusedError(f"{cannot}: {what}", "start it anew there")
        if state in ("starting", "stopping"):
            raise RefusedError(f"{cannot}: it is {state}", "try again when it runs")

    async def _upgrade(self) -> UpgradeReport:
        """Waits for its turn among the reloads; none is made until it is over."""
        at, started = now(), time.monotonic()
        async with self._parts.reloader.turn:
            log.info("upgrade started")
            try:
                successor, ready = await self._successor()
            except (UpgradeError, asyncio.CancelledError) as error:
                reason = str(error) or "servd stops"
                lines = error.last_lines if isinstance(error, UpgradeError) else ()
                log.error("upgrade failed", error=reason, last_lines=list(lines))
                seconds = round(time.monotonic() - started, 3)
                return UpgradeReport("failed", at, seconds, os.getpid(), __version__, reason, lines)
            seconds = round(time.monotonic() - started, 3)
            log.info("upgrade finished", successor=successor.pid, seconds=seconds)
            self._hand_over(successor, ready)
        return UpgradeReport("replaced", at, seconds, successor.pid, ready.version)

    def _hand_over(self, successor: Successor, ready: Ready) -> None:
        """From now on it is the next daemon that runs."""
        parts = self._parts
        parts.pool.hand_over(ready.taken)
        parts.admin.hand_over(ready.admin)
        parts.folder.hand_over()
        parts.systemd.replaced_by(successor.pid)
        parts.reloader.why_too_late = "servd was replaced meanwhile: ask again"
        closing = asyncio.get_running_loop().create_task(parts.admin.stop())
        self.replaced = Replaced(successor, ready.at_once, closing)
        successor.tell(yours=True, reload=parts.reloader.busy)
        parts.supervisor.engine.stopping.set()

    async def _successor(self) -> tuple[Successor, Ready]:
        """A new daemon that is ready to take over. Raises `UpgradeError`."""
        environ = {**os.environ, **self._parts.systemd.environ}
        successor = await Successor.start(self._handover(), environ)
        plan = self._parts.supervisor.plan
        longest = max((s.startup for s in plan.services), default=0.0)
        try:
            return successor, await successor.ready(longest * len(plan.services) + _BEYOND)
        except BaseException:
            await successor.dismiss()
            raise

    def _handover(self) -> Handover:
        parts = self._parts
        reloader, supervisor, pool = parts.reloader, parts.supervisor, parts.pool
        services = reloader.loaded.config.services
        return Handover(
            pid=os.getpid(),
            version=__version__,
            runtime_dir=parts.folder.path,
            lock=parts.folder.lock,
            made=parts.folder.made,
            sockets=[
                HandedSocket(item.key, item.sock.fileno(), item.path, item.inode)
                for item in pool.bound.values()
                if not item.inherited
            ],
            admin=parts.admin.handed(),
            inherited=pool.inherited,
            chosen=pool.chosen,
            stored=parts.store.stored,
            ports=ports_of(supervisor.plan),
            generation=reloader.generation,
            digest=reloader.loaded.digest,
            numbers=supervisor.numbers,
            services={name: before(service) for name, service in supervisor.services.items()},
            by_hand={
                name: ByHand(override.workers, override.stopped, services[name].workers)
                for name, override in reloader.overrides.items()
                if name in services
            },
        )
