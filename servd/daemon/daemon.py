"""The daemon: one loop that owns everything, from the first start to the exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import structlog

from servd._version import __version__
from servd.config.model import Config
from servd.core.basedir import absolute
from servd.core.errors import Exit, StartError
from servd.core.paths import admin_address
from servd.daemon.components import DaemonComponents
from servd.daemon.fd_store import FdStore
from servd.daemon.hooks import Hooks
from servd.daemon.log.buffer import LogRouter
from servd.daemon.log.sink import now
from servd.daemon.metrics.compactor import MetricsCompactor
from servd.daemon.metrics.cpu import CpuMeter
from servd.daemon.metrics.rates import RequestRates
from servd.daemon.metrics.snapshot import Snapshot, snapshot
from servd.daemon.options import DaemonOptions
from servd.daemon.orphans import OrphanCleaner, ZombieReaper
from servd.daemon.parent_watch import ParentWatch
from servd.daemon.periodic import Periodic
from servd.daemon.reload.own_settings import OwnSettings
from servd.daemon.reload.reloader import Reloader, tell_warning
from servd.daemon.reload.request import ReloadReport, ReloadRequest
from servd.daemon.runtime_dir import RuntimeDir
from servd.daemon.status import (
    ConfigStatus,
    ServiceStatus,
    Status,
    View,
    last_status,
    service_status,
)
from servd.daemon.systemd import Systemd
from servd.daemon.thread_pool import ResilientThreadPool
from servd.daemon.upgrade.takeover import Takeover
from servd.daemon.upgrade.upgrader import Upgrades
from servd.daemon.watch.certificates import CertificateWatch
from servd.daemon.watch.clock import ClockWatch
from servd.daemon.watch.config_files import FileWatch
from servd.daemon.watch.sources import SourceWatch
from servd.host.facts import inspect_host
from servd.host.gpus import first
from servd.plan.build import build_loaded
from servd.plan.overrides import differing, with_overrides
from servd.supervisor.circus.arbiter import ServdArbiter
from servd.supervisor.circus.watcher import StartLimiter
from servd.supervisor.context import SupervisorContext
from servd.supervisor.sockets.pool import SocketPool
from servd.supervisor.sources import Sources
from servd.supervisor.supervisor import Supervisor, start_budget, stop_budget
from servd.supervisor.worker_registry import WorkerRegistry, orphaned_workers

HEAD_START = 1.0
"""Seconds for which the workers that start have the machine for themselves: what the admin API and
the watching of files import would only be in their way."""

_LOOK_FOR_ADOPTED = 0.5

log = structlog.get_logger()


class Daemon:
    """Wires the parts together and turns signals into what they mean."""

    def __init__(
        self,
        launching: DaemonOptions,
        folder: RuntimeDir,
        record: LogRouter,
        systemd: Systemd,
        pool: SocketPool,
        store: FdStore,
    ) -> None:
        self.launching = launching
        self.folder = folder
        self.record = record
        self.sink = record.sink
        self.systemd = systemd
        self.pool = pool
        self.store = store
        self.sweeper = MetricsCompactor(folder)
        self.cpu = CpuMeter()
        self.lifeline = ParentWatch(os.environ)
        self.started_at = now()
        self._has_started = False
        self._told_to_stop = False
        self._signals: frozenset[signal.Signals] = frozenset()
        loaded, before = launching.loaded, launching.predecessor
        left = before.handover if before is not None else None
        known_ports = left.ports if left is not None else {}
        self.host = inspect_host(loaded.config, os.environ, ports=True, known_ports=known_ports)
        self.file = build_loaded(loaded, self.host, folder.path)
        by_hand = left.overrides(loaded.config) if left is not None else {}
        self.overrides = differing(by_hand, self.file)
        plan = with_overrides(self.file, self.overrides)
        self.plan, self.gpu_warnings = first(loaded, plan, self.host.environ)
        orphans = orphaned_workers(folder.private) if left is None else []
        self.left = OrphanCleaner(orphans, self.plan)

    @property
    def state(self) -> Literal["starting", "running", "reloading", "stopping"]:
        """What it is doing."""
        if self.engine.stopping.is_set():
            return "stopping"
        if not self._has_started:
            return "starting"
        return "reloading" if self.reloader.busy else "running"

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.reloader.loaded.config

    async def main(self) -> int:
        """First start, then whatever the signals ask for, then the stop."""
        asyncio.get_running_loop().set_default_executor(ResilientThreadPool())
        self._assemble()
        config, before = self.config, self.launching.predecessor
        log.info(
            "servd started",
            version=__version__,
            config=self.launching.loaded.path,
            services=len(self.plan.services),
            runtime_dir=self.folder.path,
            admin=self._admin_address(config),
            **({"replaces": before.handover.pid} if before is not None else {}),
        )
        self.admin.open(config.admin, before.handover.admin if before is not None else [])
        self._take_signals()
        if os.getpid() == 1:
            self.adopted = Periodic(_LOOK_FOR_ADOPTED, ZombieReaper().look)
            self.adopted.start()
        self.lifeline.hold(self._cut_off)
        if self.systemd.watchdog:
            # a third: a late one must not look like none (sd_watchdog_enabled(3) wants a half)
            self.signs = Periodic(self.systemd.watchdog / 3, self.systemd.alive)
            self.signs.start()
        if sys.platform != "linux":
            log.warning("not Linux: workers do not notice the daemon's death by signal")
        for warning in (*self.launching.loaded.warnings, *self.gpu_warnings):
            tell_warning(warning)
        starts = await (self._first_start() if self.succession is None else self._take_over())
        if starts or self.engine.stopping.is_set():
            await self.engine.stopping.wait()
            await self._stop()
            return Exit.OK
        await self._stop()
        return Exit.START_FAILED

    def _assemble(self) -> None:
        """Makes the parts, inside the loop that they live in."""
        self.arbiter = ServdArbiter()
        config = self.launching.loaded.config
        self.gate = StartLimiter(self._places(config), self.arbiter.manage_watchers)
        self.engine = SupervisorContext(
            arbiter=self.arbiter,
            pool=self.pool,
            gate=self.gate,
            sink=self.record.by_worker,
            now=now,
            notify_folder=self.folder.notify,
            environ=self.host.environ,
            roster=WorkerRegistry(self.folder.private),
            sources=Sources() if self.launching.watches_sources else None,
            plan_anew=lambda name: self.reload(
                ReloadRequest(f"the code of {name} can be imported now")
            ),
        )
        self.supervisor = Supervisor(self.engine)
        self.admin = self.launching.admin(self.folder.path)
        self.hooks = Hooks(config.hooks, self._config_folder(), self.host.environ)
        self.reloader = Reloader(
            self.launching.loaded,
            self.launching.read,
            self.host,
            self.supervisor,
            OwnSettings(self.record, self.admin, self.hooks, self.gate, self._places),
            now,
            self.record.boot,
        )
        self.reloader.file = self.file
        self.reloader.overrides = self.overrides
        self.certificates = CertificateWatch(self.supervisor)
        self.traffic = RequestRates(self.engine.counts)
        parts = DaemonComponents(
            self.folder, self.pool, self.store, self.systemd, self.admin, self.supervisor,
            self.reloader,
        )  # fmt: skip
        self.upgrades = Upgrades(parts, lambda: self.state, is_owned=self.lifeline.held)
        before = self.launching.predecessor
        self.succession = Takeover(parts, before) if before is not None else None
        self.record.on_event = self.hooks.take
        self._periodics = [
            self.sweeper.sweeps, self.traffic.readings, self.certificates.looks, ClockWatch().looks,
        ]  # fmt: skip
        self.watch = FileWatch(self.reload)
        self.watch.has_read(self.launching.loaded)
        self.sources: SourceWatch | None = None
        if self.engine.sources is not None:
            self.sources = SourceWatch(self.reload, self.engine.sources)
        self.reloader.before_reading = self._before_reading
        self.reloader.after_reading = self._after_reading

    def _admin_address(self, config: Config) -> str:
        """For people, who may want to hand it to `--admin`."""
        address = admin_address(config.admin.listen, self.folder.path)
        return str(address) if config.admin.enabled else "none"

    def _config_folder(self) -> str:
        path = os.path.abspath(self.launching.loaded.path)
        return path if os.path.isdir(path) else os.path.dirname(path)

    def _places(self, config: Config) -> int:
        return config.daemon.start_concurrency or 2 * self.host.usable_cpus

    async def _first_start(self) -> bool:
        """Starts everything; a signal to stop ends the waiting. False where something could not
        start, and `on_start_failure` says that the daemon shall end then.
        """
        await self.left.make_room()
        what = f"Starting {len(self.plan.services)} services"
        self.systemd.starting(what, start_budget(self.plan))
        starting = asyncio.ensure_future(self.supervisor.start(self.plan))
        stopping = asyncio.ensure_future(self.engine.stopping.wait())
        either = {starting, stopping}
        await asyncio.wait(either, timeout=HEAD_START, return_when=asyncio.FIRST_COMPLETED)
        await self._begin_to_watch()
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            return True
        failed = starting.result()
        self._says_ready(**({"failed": sorted(failed)} if failed else {}))
        return not failed or self.config.daemon.on_start_failure != "exit"

    async def _take_over(self) -> bool:
        """Takes the place of the daemon before; False where that goes on."""
        assert self.succession is not None
        if not await self.succession.take_over(self.plan):
            return False
        await self._begin_to_watch()
        self._says_ready()
        return True

    async def _begin_to_watch(self) -> None:
        """What is done beside running the services."""
        self._look_at_files()
        await self.admin.start(self)
        for periodic in self._periodics:
            periodic.start()

    def _says_ready(self, **details: object) -> None:
        status = self.supervisor.summary
        self._has_started = True
        self.pool.own()  # what was offered, and nobody wanted
        self.store.update(self.pool)
        self.systemd.ready(status)
        log.info("servd ready", status=status, **details)

    def reload(self, request: ReloadRequest) -> asyncio.Future[ReloadReport]:
        """Asks for a reload; the future is its report."""
        return self.reloader.request(request)

    def _look_at_files(self) -> None:
        self.watch.look_at(self.reloader.seen, self.reloader.loaded)
        if self.sources is not None:
            config = (*self.reloader.loaded.files, *self.reloader.loaded.read)
            self.sources.look_at(self.reloader.file, config)

    def _before_reading(self) -> None:
        self.watch.about_to_read()
        if self.state == "reloading":
            self.systemd.reloading("Reloading")

    def _after_reading(self) -> None:
        self._look_at_files()
        self.store.update(self.pool)
        self.certificates.look(datetime.now(UTC))
        if self.state == "reloading":
            self.systemd.ready(self.supervisor.summary)

    def status(self) -> Status:
        """What runs, as it is now."""
        loaded, reloader = self.reloader.loaded, self.reloader
        return Status(
            version=__version__,
            pid=os.getpid(),
            state=self.state,
            started_at=self.started_at,
            config=ConfigStatus(
                absolute(loaded.path) if not loaded.path.startswith("<") else loaded.path,
                loaded.digest,
                reloader.generation,
                reloader.loaded_at,
            ),
            last_reload=last_status(reloader.last),
            last_act=last_status(reloader.last_act),
            services=self.services_status(),
            predecessor=self.succession.draining if self.succession is not None else None,
        )

    def snapshot(self) -> Snapshot:
        """What there is to be measured, as it is now."""
        return snapshot(self.supervisor, self.reloader.history, self.sink.dropped)

    def services_status(self) -> list[ServiceStatus]:
        """Every service in the order of the graph; then those that are on their way out."""
        known = self.supervisor.services
        here = [known[s.name] for s in self.supervisor.plan.services if s.name in known]
        gone = sorted(self.supervisor.leaving, key=lambda service: service.plan.name)
        file = self.reloader.file.by_name
        view = View(self.cpu, self.traffic, file)
        found = [service_status(service, view) for service in (*here, *gone)]
        self.cpu.forget_all_but({process.pid for s in found for process in s.processes})
        return found

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], object]] = {
            signal.SIGTERM: partial(self._asked_to_stop, signal.SIGTERM),
            signal.SIGINT: partial(self._asked_to_stop, signal.SIGINT),
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGHUP: lambda: self.reload(ReloadRequest("SIGHUP")),
            signal.SIGUSR2: self.upgrades.ask,
            signal.SIGCHLD: self.arbiter.manage_watchers,
        }
        self._signals = frozenset(handlers)
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        if self.launching.early.asked_to_reload:
            self.reload(ReloadRequest("SIGHUP"))

    def _cut_off(self) -> None:
        self._told_to_stop = True
        log.info("stopping", reason="whoever started servd has ended")
        self.engine.stopping.set()

    def _asked_to_stop(self, number: signal.Signals) -> None:
        if self._told_to_stop:
            log.warning("stopping at once", signal=number.name)
            self.supervisor.kill()
            if self.succession is not None:
                self.succession.hurry()
            return
        self._told_to_stop = True
        log.info("stopping", signal=number.name)
        self.engine.stopping.set()

    def _reopen_logs(self) -> None:
        try:
            self.sink.reopen()
        except StartError as error:
            log.error("log not reopened", error=str(error))
        else:
            log.info("log reopened")

    def _leave_signals(self) -> None:
        """One that comes now, when all is over, must not change how we end: the loop gives each its
        default action back when it closes, and Python takes a moment to exit.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)

    async def _stop(self) -> None:
        self.engine.stopping.set()
        self.launching.give_up()
        configured = self.config.daemon.shutdown_timeout
        budget = stop_budget(self.supervisor.plan)
        timeout = budget if configured == "auto" else float(configured)
        self.systemd.stopping(timeout + 5)
        await self.upgrades.stop()
        await self.watch.stop()
        if self.sources is not None:
            await self.sources.stop()
        for periodic in self._periodics:
            await periodic.stop()
        end = asyncio.get_running_loop().time() + timeout
        graceful = await self._stop_services(end)
        if self.succession is not None:
            replaced = self.upgrades.replaced is not None
            left = max(0.0, end - asyncio.get_running_loop().time())
            await self.succession.see_off(None if replaced else left)
        await self.left.stop()
        await self.hooks.stop()
        log.info("servd stopped", graceful=graceful, log_lines_dropped=self.sink.dropped)
        self.record.close()
        if self.upgrades.replaced is None:
            await self.admin.stop()
        else:
            await self.upgrades.replaced.closing
            self.upgrades.replaced.heeding.cancel()
        self.engine.roster.close()
        self._leave_signals()

    async def _stop_services(self, end: float) -> bool:
        """Undoes a reload that is under way, then ends everything; both until `end`."""
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(self.reloader.stop(), end - loop.time())
        except TimeoutError:
            self.supervisor.kill()
            await self.reloader.stop()
        seconds = max(0.0, end - loop.time())
        if self.upgrades.replaced is not None:
            return await self.upgrades.replaced.end(self.supervisor, seconds, self._ended_before)
        self.pool.hand_over(self.store.stored)
        return await self.supervisor.stop(seconds)

    async def _ended_before(self, name: str) -> None:
        """Returns once a service has ended in the daemon before this one."""
        if self.succession is not None:
            await self.succession.predecessor.ended(name)
