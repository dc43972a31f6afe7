"""Replacing this daemon by one that is started anew (SIGUSR2): another version of servd or Python,
with the same sockets and without a lost request.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

from servd._version import __version__
from servd.daemon.handover import ByHand, HandedSocket, Handover
from servd.daemon.logs import now
from servd.daemon.reload import ports_of
from servd.daemon.successor import Ready, Successor, UpgradeError
from servd.plan.overrides import RefusedError
from servd.supervisor.succession import before

if TYPE_CHECKING:
    from servd.daemon.daemon import Daemon

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


class Upgrades:
    """Attempts to replace a daemon, one at a time. `successor` is there once one has come out well:
    the daemon then ends, and says `why`.
    """

    why = "servd is replaced"

    def __init__(self, daemon: Daemon, *, is_owned: bool) -> None:
        self.successor: Successor | None = None
        self._daemon = daemon
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
        if self._attempt is not None and self.successor is None:
            self._attempt.cancel()
            await asyncio.wait({self._attempt})

    def _check(self) -> None:
        """Raises `RefusedError` where something is in the way of it, with what to do instead."""
        cannot, state = "servd cannot be replaced", self._daemon.state
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
        async with self._daemon.reloader.turn:
            log.info("upgrade started")
            try:
                successor, ready = await self._successor()
            except UpgradeError as error:
                seconds = round(time.monotonic() - started, 3)
                lines = error.last_lines
                log.error("upgrade failed", error=str(error), last_lines=list(lines))
                return UpgradeReport(
                    "failed", at, seconds, os.getpid(), __version__, str(error), lines
                )
            seconds = round(time.monotonic() - started, 3)
            log.info("upgrade finished", successor=successor.pid, seconds=seconds)
            self.successor = successor
            self._daemon.hand_over(successor, ready)
        return UpgradeReport("replaced", at, seconds, successor.pid, ready.version)

    async def _successor(self) -> tuple[Successor, Ready]:
        """A new daemon that is ready to take over. Raises `UpgradeError`."""
        daemon = self._daemon
        environ = {**os.environ, **daemon.systemd.environ}
        successor = await Successor.start(self._handover(), environ)
        plan = daemon.supervisor.plan
        longest = max((s.startup for s in plan.services), default=0.0)
        try:
            return successor, await successor.ready(longest * len(plan.services) + _BEYOND)
        except BaseException:
            await successor.dismiss()
            raise

    def _handover(self) -> Handover:
        daemon = self._daemon
        reloader, supervisor, pool = daemon.reloader, daemon.supervisor, daemon.pool
        services = reloader.loaded.config.services
        return Handover(
            pid=os.getpid(),
            version=__version__,
            runtime_dir=daemon.folder.path,
            lock=daemon.folder.lock,
            made=daemon.folder.made,
            sockets=[
                HandedSocket(item.key, item.sock.fileno(), item.path, item.inode)
                for item in pool.bound.values()
                if not item.inherited
            ],
            admin=daemon.admin.handed(),
            inherited=pool.inherited,
            chosen=pool.chosen,
            stored=daemon.store.stored,
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
