"""Replaces this daemon by a new one (SIGUSR2) with the same sockets, without a lost request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import structlog

from servd._version import __version__
from servd.core.events import Event
from servd.core.quick_dataclass import dataclass
from servd.daemon.components import DaemonComponents
from servd.daemon.log.sink import now
from servd.daemon.reload.planner import ports_of
from servd.daemon.upgrade.new_daemon import NewDaemon, Ready, UpgradeError
from servd.daemon.upgrade.state import OverrideRecord, UpgradeState
from servd.plan.autoscale import scaling_of
from servd.plan.overrides import RefusedError
from servd.supervisor.apply.inherit import inherited_service
from servd.supervisor.supervisor import Supervisor, start_budget

_MARGIN_SECONDS = 60.0
"""Time for the new daemon in addition to the start budget of its services."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """The outcome: pid and version of the running daemon, and the last lines of a failed worker."""

    outcome: Literal["replaced", "failed"]
    at: str
    seconds: float
    pid: int
    version: str
    error: str | None = None
    last_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replaced:
    """Remaining work of a replaced daemon: it drains the services `at_once` first. `closing` the
    admin API, and `heeding` the new daemon's orders, are under way.
    """

    new: NewDaemon
    at_once: list[str]
    closing: asyncio.Task[None]
    heeding: asyncio.Task[None]
    why: str = "servd is being upgraded"

    async def end(
        self,
        supervisor: Supervisor,
        seconds: float,
        ended_before: Callable[[str], Awaitable[None]],
    ) -> bool:
        """Drains everything and tells the new daemon; returns whether all ended by themselves.
        `ended_before` waits until a service has ended in the previous daemon too.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await supervisor.release(self.at_once, self.why)
                self.new.tell(released=self.at_once)
        telling: set[asyncio.Task[None]] = set()

        async def tell(name: str) -> None:
            await ended_before(name)
            self.new.tell(ended=[name])

        def ended(name: str) -> None:
            telling.add(loop.create_task(tell(name)))

        graceful = await supervisor.stop(max(0.0, end - loop.time()), self.why, ended)
        await asyncio.gather(*telling)
        return graceful


class Upgrades:
    """Replaces the daemon; `replaced` is set after success. `is_owned`: a program embeds it.
    `start` starts the new daemon.
    """

    def __init__(
        self,
        components: DaemonComponents,
        *,
        is_owned: bool,
        start: Callable[[UpgradeState, Mapping[str, str]], Awaitable[NewDaemon]] = NewDaemon.start,
    ) -> None:
        self.replaced: Replaced | None = None
        self._components = components
        self._is_owned = is_owned
        self._start = start
        self._attempt: asyncio.Task[UpgradeReport] | None = None

    def request(self) -> asyncio.Future[UpgradeReport]:
        """Starts an attempt, or joins the present one. Raises `RefusedError`."""
        self._check()
        if self._attempt is None or self._attempt.done():
            self._attempt = asyncio.get_running_loop().create_task(self._upgrade())
        return self._attempt

    def ask(self) -> None:
        """Requests an upgrade for a signal: logs a refusal."""
        try:
            self.request()
        except RefusedError as error:
            log.error(Event.UPGRADE_REFUSED, error=str(error), hint=error.hint)

    async def stop(self) -> None:
        """Cancels an attempt that is under way."""
        if self._attempt is not None and self.replaced is None:
            self._attempt.cancel()
            await asyncio.wait({self._attempt})

    def _check(self) -> None:
        """Raises `RefusedError`, with what to do instead, if an upgrade is not possible."""
        cannot, phase = "cannot upgrade servd", self._components.lifecycle.phase
        if os.getpid() == 1:
            what = "it is PID 1 of a container"
            raise RefusedError(f"{cannot}: {what}", "restart the container")
        if self._is_owned:
            what = "it runs inside the program that called servd.serve()"
            raise RefusedError(f"{cannot}: {what}", "restart it there")
        if phase != "running":
            raise RefusedError(f"{cannot}: it is {phase}", "try again when it is running")

    async def _upgrade(self) -> UpgradeReport:
        """Waits for its turn among the reloads, and holds it to the end."""
        at, started = now(), time.monotonic()
        try:
            async with self._components.reloader.turn:
                log.info(Event.UPGRADE_STARTED)
                new, ready = await self._start_and_hand_over()
        except UpgradeError as error:
            reason, lines = str(error), error.last_lines
        except asyncio.CancelledError:
            reason, lines = "servd is stopping", ()
        except Exception as error:  # the caller must get an answer
            log.exception(Event.INTERNAL_ERROR)
            reason, lines = f"internal error: {error!r}", ()
        else:
            seconds = round(time.monotonic() - started, 3)
            log.info(Event.UPGRADE_FINISHED, new_pid=new.pid, seconds=seconds)
            return UpgradeReport("replaced", at, seconds, new.pid, ready.version)
        self._components.resources.pool.reclaim()
        log.error(Event.UPGRADE_FAILED, error=reason, last_lines=list(lines))
        seconds = round(time.monotonic() - started, 3)
        return UpgradeReport("failed", at, seconds, os.getpid(), __version__, reason, lines)

    async def _start_and_hand_over(self) -> tuple[NewDaemon, Ready]:
        """Returns the daemon that has taken over. Raises `UpgradeError` if none has."""
        components = self._components
        environ = {**os.environ, **components.resources.systemd.environ}
        new = await self._start(upgrade_state(components), environ)
        try:
            budget = start_budget(components.reloader.desired.plan) + _MARGIN_SECONDS
            ready = await new.ready(budget)
            await self._hand_over(new, ready)
        except BaseException:
            await new.dismiss()
            self._remove_left_sockets()
            raise
        return new, ready

    def _remove_left_sockets(self) -> None:
        """Removes the notification sockets of a new daemon that was killed."""
        supervisor = self._components.supervisor
        services = (*supervisor.services.values(), *supervisor.leaving)
        ours = {process.notify.path for service in services for process in service.processes}
        self._components.resources.folder.remove_sockets_but(ours)

    async def _hand_over(self, new: NewDaemon, ready: Ready) -> None:
        """Makes `new` the main daemon, or reverts that if it does not confirm: `UpgradeError`."""
        components, resources = self._components, self._components.resources
        resources.pool.hand_over(ready.taken)
        components.admin.hand_over(ready.admin)
        resources.folder.hand_over()
        resources.systemd.replaced_by(new.pid)
        new.tell(yours=True)
        try:
            await new.confirms()
        except BaseException:
            components.admin.hand_over(())
            resources.folder.own()
            resources.systemd.continues()
            raise
        if components.reloader.is_busy:
            new.tell(reload=True)
        components.queue.refusal = "servd was upgraded meanwhile: try again"
        loop = asyncio.get_running_loop()
        closing = loop.create_task(components.admin.stop())
        heeding = loop.create_task(new.heed(components.supervisor.kill))
        self.replaced = Replaced(new, ready.at_once, closing, heeding)
        components.lifecycle.stopping.set()


def upgrade_state(components: DaemonComponents) -> UpgradeState:
    """Returns what the new daemon receives from this one."""
    resources, supervisor = components.resources, components.supervisor
    desired, pool = components.reloader.desired, components.resources.pool
    config = desired.loaded.config
    return UpgradeState(
        pid=os.getpid(),
        version=__version__,
        runtime_dir=resources.folder.path,
        runtime_dir_setting=config.daemon.runtime_dir,
        lock=resources.folder.lock,
        made=resources.folder.made,
        sockets=[item.handed() for item in pool.bound.values() if not item.inherited],
        admin=components.admin.handed(),
        inherited=pool.inherited,
        chosen=pool.chosen,
        stored=resources.store.stored,
        ports=ports_of(desired.plan),
        generation=desired.revision,
        digest=desired.loaded.digest,
        numbers=supervisor.numbers,
        services={name: inherited_service(each) for name, each in supervisor.services.items()},
        by_hand={
            name: OverrideRecord(override.workers, override.stopped, config.services[name].workers)
            for name, override in desired.overrides.items()
            if name in config.services
        },
        workers={s.name: s.workers for s in desired.declared.services if scaling_of(s)},
        gpus={service.name: service.gpus for service in desired.plan.services if service.gpus},
        gpu_peaks=dict(supervisor.context.workers.gpus.peaks),
        gpu_quarantine=dict(supervisor.context.workers.gpus.quarantine.reasons),
        known_gpus=supervisor.context.workers.gpus.known,
    )
