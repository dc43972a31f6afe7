"""Replacing this daemon by one that is started anew (SIGUSR2): another version of servd or Python,
with the same sockets and without a lost request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from servd._version import __version__
from servd.daemon.components import DaemonComponents
from servd.daemon.log.sink import now
from servd.daemon.reload.reloader import ports_of
from servd.daemon.upgrade.new_daemon import NewDaemon, Ready, UpgradeError
from servd.daemon.upgrade.state import OverrideRecord, UpgradeState
from servd.plan.overrides import RefusedError
from servd.supervisor.apply.inherit import inherited_service
from servd.supervisor.supervisor import Supervisor, start_budget

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
    `at_once`; `closing` the admin API, and `heeding` what the successor wants, are under way.
    """

    successor: NewDaemon
    at_once: list[str]
    closing: asyncio.Task[None]
    heeding: asyncio.Task[None]
    why: str = "servd is replaced"

    async def end(
        self,
        supervisor: Supervisor,
        seconds: float,
        ended_before: Callable[[str], Awaitable[None]],
    ) -> bool:
        """Drains everything and tells the successor of it; whether all ended by themselves.
        `ended_before` returns once a service has ended in the daemon before this one, too.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await supervisor.release(self.at_once, self.why)
                self.successor.tell(released=self.at_once)
        telling: set[asyncio.Task[None]] = set()

        async def tell(name: str) -> None:
            await ended_before(name)
            self.successor.tell(ended=[name])

        def ended(name: str) -> None:
            telling.add(loop.create_task(tell(name)))

        graceful = await supervisor.stop(max(0.0, end - loop.time()), self.why, ended)
        await asyncio.gather(*telling)
        return graceful


class Upgrades:
    """Attempts to replace a daemon that has these parts, one at a time. `replaced` is there once
    one has come out well: what is left to be done is to drain. `state` is what the daemon does.
    """

    def __init__(
        self, parts: DaemonComponents, state: Callable[[], str], *, is_owned: bool
    ) -> None:
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
        try:
            async with self._parts.reloader.turn:
                log.info("upgrade started")
                successor, ready = await self._replaced()
        except UpgradeError as error:
            reason, lines = str(error), error.last_lines
        except asyncio.CancelledError:
            reason, lines = "servd stops", ()
        except Exception as error:  # whoever waits must get an answer
            log.exception("internal error")
            reason, lines = f"internal error: {error!r}", ()
        else:
            seconds = round(time.monotonic() - started, 3)
            log.info("upgrade finished", successor=successor.pid, seconds=seconds)
            return UpgradeReport("replaced", at, seconds, successor.pid, ready.version)
        self._parts.pool.take_back()
        log.error("upgrade failed", error=reason, last_lines=list(lines))
        seconds = round(time.monotonic() - started, 3)
        return UpgradeReport("failed", at, seconds, os.getpid(), __version__, reason, lines)

    async def _replaced(self) -> tuple[NewDaemon, Ready]:
        """Who has taken over. Raises `UpgradeError`, and then nobody has."""
        environ = {**os.environ, **self._parts.systemd.environ}
        successor = await NewDaemon.start(self._handover(), environ)
        try:
            budget = start_budget(self._parts.supervisor.plan) + _BEYOND
            ready = await successor.ready(budget)
            await self._hand_over(successor, ready)
        except BaseException:
            await successor.dismiss()
            raise
        return successor, ready

    async def _hand_over(self, successor: NewDaemon, ready: Ready) -> None:
        """From now on it is the next daemon that runs; what was handed over is taken back where
        that does not say so. Raises `UpgradeError`.
        """
        parts = self._parts
        parts.pool.hand_over(ready.taken)
        parts.admin.hand_over(ready.admin)
        parts.folder.hand_over()
        parts.systemd.replaced_by(successor.pid)
        successor.tell(yours=True)
        try:
            await successor.confirms()
        except BaseException:
            parts.admin.hand_over(())
            parts.folder.own()
            parts.systemd.goes_on()
            raise
        if parts.reloader.busy:
            successor.tell(reload=True)
        parts.reloader.why_too_late = "servd was replaced meanwhile: ask again"
        loop, hurry = asyncio.get_running_loop(), parts.supervisor.kill
        closing = loop.create_task(parts.admin.stop())
        heeding = loop.create_task(successor.heed(hurry))
        self.replaced = Replaced(successor, ready.at_once, closing, heeding)
        parts.supervisor.engine.stopping.set()

    def _handover(self) -> UpgradeState:
        parts = self._parts
        reloader, supervisor, pool = parts.reloader, parts.supervisor, parts.pool
        services = reloader.loaded.config.services
        return UpgradeState(
            pid=os.getpid(),
            version=__version__,
            runtime_dir=parts.folder.path,
            runtime_dir_setting=reloader.loaded.config.daemon.runtime_dir,
            lock=parts.folder.lock,
            made=parts.folder.made,
            sockets=[item.handed() for item in pool.bound.values() if not item.inherited],
            admin=parts.admin.handed(),
            inherited=pool.inherited,
            chosen=pool.chosen,
            stored=parts.store.stored,
            ports=ports_of(supervisor.plan),
            generation=reloader.generation,
            digest=reloader.loaded.digest,
            numbers=supervisor.numbers,
            services={
                name: inherited_service(service) for name, service in supervisor.services.items()
            },
            by_hand={
                name: OverrideRecord(override.workers, override.stopped, services[name].workers)
                for name, override in reloader.overrides.items()
                if name in services
            },
        )
