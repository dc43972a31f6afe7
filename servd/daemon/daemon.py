"""The daemon: one loop that owns everything, from the first start to the exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal, Protocol

import structlog

from servd._version import __version__
from servd.config.load import Loaded
from servd.config.model import AdminConfig, Config
from servd.daemon.certificates import CertificateWatch
from servd.daemon.hooks import Hooks
from servd.daemon.journal import Record
from servd.daemon.logs import LogSink, configure, now, open_log
from servd.daemon.metrics import Snapshot, snapshot
from servd.daemon.orphans import Adopted, LeftWorkers
from servd.daemon.periodic import Periodic
from servd.daemon.reload import Reloader, tell_warning
from servd.daemon.request import Report, Request
from servd.daemon.runtime_dir import RuntimeDir, admin_address, runtime_dir_of
from servd.daemon.settings import SettingsChange
from servd.daemon.source_watch import SourceWatch
from servd.daemon.status import (
    ConfigStatus,
    ServiceStatus,
    Status,
    View,
    last_status,
    service_status,
)
from servd.daemon.sweeper import Sweeper
from servd.daemon.systemd import Systemd
from servd.daemon.traffic import Traffic
from servd.daemon.usage import CpuMeter
from servd.daemon.watch import FileWatch
from servd.early_signals import EarlySignals
from servd.errors import Exit, StartError
from servd.gpus import first
from servd.host import inspect_host
from servd.plan.build import build_loaded
from servd.supervisor.arbiter import ServdArbiter
from servd.supervisor.engine import Engine
from servd.supervisor.roster import Roster, left_behind
from servd.supervisor.sockets import SocketPool
from servd.supervisor.sources import Sources
from servd.supervisor.supervisor import Supervisor, stop_budget
from servd.supervisor.watcher import StartGate
from servd.wire import listen_fds, names

HEAD_START = 1.0
"""Seconds for which the workers that start have the machine for themselves: what the admin API and
the watching of files import would only be in their way."""

_LOOK_FOR_ADOPTED = 0.5

log = structlog.get_logger()


class Admin(Protocol):
    """The part that answers whoever asks the daemon for something."""

    def open(self, config: AdminConfig) -> None:
        """Takes its address. Raises `StartError`."""

    async def start(self) -> None:
        """Answers from now on."""

    async def change(self, before: AdminConfig, after: AdminConfig) -> SettingsChange:
        """Prepares another address. Raises `StartError`."""

    async def stop(self) -> None:
        """Answers what has been asked, and nothing more."""


@dataclass(frozen=True, slots=True)
class Launching:
    """What the daemon is started with: the configuration, how to read it again, who answers for
    it, which signals came early, and where to live when the configuration does not say. In
    development, sources are watched. `give_up` ends a reading that is under way, since the daemon
    stops.
    """

    loaded: Loaded
    read: Callable[[], Loaded]
    admin: Callable[[Daemon], Admin]
    early: EarlySignals
    runtime_dir: str | None = None
    watches_sources: bool = False
    give_up: Callable[[], None] = lambda: None


def run(launching: Launching) -> int:
    """Runs a valid configuration in the foreground until it is told to stop.

    Returns the exit status. Raises `StartError` when the daemon itself cannot begin: its log, its
    runtime folder or its admin socket cannot be had.
    """
    loaded = launching.loaded
    config = loaded.config
    inherited = listen_fds.take(os.environ)
    systemd = Systemd()
    folder = RuntimeDir(
        runtime_dir_of(config, loaded.path, launching.runtime_dir),
        ours=not config.daemon.runtime_dir and "RUNTIME_DIRECTORY" not in os.environ,
    )
    folder.open()
    try:
        sink = LogSink(config.daemon.log)
        try:
            record = Record(sink)
            configure(record.by_daemon, config.daemon.log.level)
            daemon = Daemon(launching, folder, record, systemd, SocketPool(inherited))
            return asyncio.run(daemon.main())
        finally:
            sink.close()
    finally:
        folder.close()


class Daemon:
    """Wires the parts together and turns signals into what they mean."""

    def __init__(
        self,
        launching: Launching,
        folder: RuntimeDir,
        record: Record,
        systemd: Systemd,
        pool: SocketPool,
    ) -> None:
        self.launching = launching
        self.folder = folder
        self.record = record
        self.sink = record.sink
        self.systemd = systemd
        self.pool = pool
        self.sweeper = Sweeper(folder)
        self.cpu = CpuMeter()
        self.started_at = now()
        self._has_started = False
        self._signals: frozenset[signal.Signals] = frozenset()
        config = launching.loaded.config
        self.host = inspect_host(config, os.environ, ports=True)
        plan = build_loaded(launching.loaded, self.host, folder.path)
        self.plan, found = first(launching.loaded, plan, self.host.environ)
        self.gpu_warnings = found
        self.left = LeftWorkers(left_behind(folder.roster), self.plan)

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
        self._assemble()
        config = self.config
        log.info(
            "servd started",
            version=__version__,
            config=self.launching.loaded.path,
            services=len(self.plan.services),
            runtime_dir=self.folder.path,
            admin=self._admin_address(config),
        )
        self.admin.open(config.admin)
        self._take_signals()
        if os.getpid() == 1:
            self.adopted = Periodic(_LOOK_FOR_ADOPTED, Adopted().look)
            self.adopted.start()
        self._hold_the_lifeline()
        if self.systemd.watchdog:
            # a third: a late one must not look like none (sd_watchdog_enabled(3) wants a half)
            self.signs = Periodic(self.systemd.watchdog / 3, self.systemd.alive)
            self.signs.start()
        self.sweeper.sweeps.start()
        self.traffic.readings.start()
        if sys.platform != "linux":
            log.warning("not Linux: workers do not notice the daemon's death by signal")
        for warning in (*self.launching.loaded.warnings, *self.gpu_warnings):
            tell_warning(warning)
        await self.left.make_room()
        failed = await self._first_start()
        if (
            failed
            and config.daemon.on_start_failure == "exit"
            and not self.engine.stopping.is_set()
        ):
            await self._stop()
            return Exit.START_FAILED
        await self.engine.stopping.wait()
        await self._stop()
        return Exit.OK

    def _assemble(self) -> None:
        """Makes the parts, inside the loop that they live in."""
        self.arbiter = ServdArbiter()
        config = self.launching.loaded.config
        self.gate = StartGate(self._places(config), self.arbiter.manage_watchers)
        self.engine = Engine(
            arbiter=self.arbiter,
            pool=self.pool,
            gate=self.gate,
            sink=self.record.by_worker,
            now=now,
            notify_folder=self.folder.notify,
            environ=self.host.environ,
            roster=Roster(self.folder.roster),
            sources=Sources() if self.launching.watches_sources else None,
            plan_anew=lambda name: self.reload(Request(f"the code of {name} can be imported now")),
        )
        self.supervisor = Supervisor(self.engine)
        self.admin = self.launching.admin(self)
        self.reloader = Reloader(
            self.launching.loaded,
            self.launching.read,
            self.host,
            self.supervisor,
            self,
            now,
            self.record.boot,
        )
        self.reloader.file = self.plan
        self.hooks = Hooks(config.hooks, self._config_folder(), self.host.environ)
        self.record.on_event = self.hooks.take
        self.certificates = CertificateWatch(self.supervisor)
        self.traffic = Traffic(self.engine.counts)
        self.watch = FileWatch(self.reload)
        self.watch.has_read(self.launching.loaded)
        self.sources: SourceWatch | None = None
        if self.engine.sources is not None:
            self.sources = SourceWatch(self.reload, self.engine.sources)
        self.reloader.before_reading = self._before_reading
        self.reloader.after_reading = self._after_reading

    def _admin_address(self, config: Config) -> str:
        """For people, who may want to hand it to `--admin`."""
        address = admin_address(config.admin, self.folder.path)
        return str(address) if config.admin.enabled else "none"

    def _config_folder(self) -> str:
        path = os.path.abspath(self.launching.loaded.path)
        return path if os.path.isdir(path) else os.path.dirname(path)

    def _places(self, config: Config) -> int:
        return config.daemon.start_concurrency or 2 * self.host.usable_cpus

    async def _first_start(self) -> dict[str, str]:
        """Starts everything; a signal to stop ends the waiting."""
        longest = max((s.startup for s in self.plan.services), default=0.0)
        budget = longest * max(1, len(self.plan.services)) + 10
        self.systemd.starting(f"Starting {len(self.plan.services)} services", budget)
        starting = asyncio.ensure_future(self.supervisor.start(self.plan))
        stopping = asyncio.ensure_future(self.engine.stopping.wait())
        either = {starting, stopping}
        await asyncio.wait(either, timeout=HEAD_START, return_when=asyncio.FIRST_COMPLETED)
        self._look_at_files()
        await self.admin.start()
        self.certificates.looks.start()
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            return {}
        failed = starting.result()
        status = self.supervisor.summary
        self._has_started = True
        self.systemd.ready(status)
        log.info("servd ready", status=status, **({"failed": sorted(failed)} if failed else {}))
        return failed

    def reload(self, request: Request) -> asyncio.Future[Report]:
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
        self.certificates.look(datetime.now(UTC))
        if self.state == "reloading":
            self.systemd.ready(self.supervisor.summary)

    async def prepare(self, before: Config, after: Config) -> SettingsChange:
        """Prepares what a reload changes of the daemon itself. Raises `StartError`."""
        change = SettingsChange()
        if before.daemon.log != after.daemon.log:
            stream = open_log(after.daemon.log)

            async def adopt() -> None:
                self.sink.adopt(after.daemon.log, stream)
                configure(self.record.by_daemon, after.daemon.log.level)

            async def forget() -> None:
                stream.close()

            change.commits.append(adopt)
            change.undoes.append(forget)
        if before.admin != after.admin:
            try:
                admin = await self.admin.change(before.admin, after.admin)
            except StartError:
                await change.undo()
                raise
            change.commits += admin.commits
            change.undoes += admin.undoes

        async def take_over() -> None:
            self.gate.places = self._places(after)
            self.gate.wake()
            self.hooks.hooks = after.hooks

        change.commits.append(take_over)
        return change

    def status(self) -> Status:
        """What runs, as it is now."""
        loaded, reloader = self.reloader.loaded, self.reloader
        return Status(
            version=__version__,
            pid=os.getpid(),
            state=self.state,
            started_at=self.started_at,
            config=ConfigStatus(
                os.path.abspath(loaded.path) if not loaded.path.startswith("<") else loaded.path,
                loaded.digest,
                reloader.generation,
                reloader.loaded_at,
            ),
            last_reload=last_status(reloader.last),
            last_act=last_status(reloader.last_act),
            services=self.services_status(),
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
            signal.SIGHUP: lambda: self.reload(Request("SIGHUP")),
            signal.SIGUSR2: partial(self._not_yet, "SIGUSR2"),
            signal.SIGCHLD: self.arbiter.manage_watchers,
        }
        self._signals = frozenset(handlers)
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        if self.launching.early.asked_to_reload:
            self.reload(Request("SIGHUP"))

    def _hold_the_lifeline(self) -> None:
        """Ends with whoever started us and holds the other end of a pipe (see `servd.serve`)."""
        text = os.environ.pop(names.LIFELINE, "")
        if not text.isdecimal():
            return
        descriptor = int(text)
        os.set_inheritable(descriptor, False)
        loop = asyncio.get_running_loop()

        def cut() -> None:
            loop.remove_reader(descriptor)
            log.info("stopping", reason="whoever started servd has ended")
            self.engine.stopping.set()

        loop.add_reader(descriptor, cut)

    def _asked_to_stop(self, number: signal.Signals) -> None:
        if self.engine.stopping.is_set():
            log.warning("stopping at once", signal=number.name)
            self.supervisor.kill()
            return
        log.info("stopping", signal=number.name)
        self.engine.stopping.set()

    def _reopen_logs(self) -> None:
        try:
            self.sink.reopen()
        except StartError as error:
            log.error("log not reopened", error=str(error))
        else:
            log.info("log reopened")

    def _not_yet(self, name: str) -> None:
        log.warning(f"{name} is not supported yet", signal=name)

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
        await self.watch.stop()
        if self.sources is not None:
            await self.sources.stop()
        for periodic in (self.sweeper.sweeps, self.traffic.readings, self.certificates.looks):
            await periodic.stop()
        graceful = await self._stop_services(timeout)
        await self.left.stop()
        await self.hooks.stop()
        log.info("servd stopped", graceful=graceful, log_lines_dropped=self.sink.dropped)
        self.record.close()
        await self.admin.stop()
        self._leave_signals()

    async def _stop_services(self, timeout: float) -> bool:
        """Undoes a reload that is under way, then ends everything; both within `timeout`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        try:
            await asyncio.wait_for(self.reloader.stop(), timeout)
        except TimeoutError:
            self.supervisor.kill()
            await self.reloader.stop()
        return await self.supervisor.stop(max(0.0, end - loop.time()))
