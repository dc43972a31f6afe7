"""The daemon: one loop that owns everything, from the first start to the exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import structlog

from servd._version import __version__
from servd.config.model import Config
from servd.core import gc_tuning
from servd.core.basedir import absolute
from servd.core.diagnostics import Diagnostic
from servd.core.errors import Exit, StartError
from servd.core.events import Event
from servd.daemon.admin_protocol import api_address
from servd.daemon.autoscaler import Autoscaler
from servd.daemon.components import DaemonComponents
from servd.daemon.gpus.monitor import GpuMonitor
from servd.daemon.gpus.quarantine import GpuQuarantine
from servd.daemon.gpus.usage import usage_of
from servd.daemon.hooks import Hooks
from servd.daemon.log.sink import now
from servd.daemon.metrics.compactor import MetricsCompactor
from servd.daemon.metrics.cpu import CpuMeter
from servd.daemon.metrics.history import RateHistory
from servd.daemon.metrics.rates import RequestRates
from servd.daemon.options import DaemonOptions
from servd.daemon.orphans import OrphanCleaner, ZombieReaper
from servd.daemon.parent_watch import ParentWatch
from servd.daemon.periodic import Periodic
from servd.daemon.reload.reloader import log_warning
from servd.daemon.reload.request import ReloadReport, ReloadRequest
from servd.daemon.surroundings import Surroundings
from servd.daemon.upgrade.takeover import Takeover
from servd.daemon.upgrade.upgrader import Upgrades
from servd.daemon.welcome import page_of, welcome
from servd.supervisor.apply.mode import FIRST_START
from servd.supervisor.supervisor import stop_budget
from servd.wire.graces import MANAGER_SECONDS

if TYPE_CHECKING:
    from servd.daemon.metrics.multiprocess import AppMetrics
    from servd.daemon.metrics.snapshot import Snapshot
    from servd.daemon.status import ServiceStatus, Status

HEAD_START_SECONDS = 1.0
"""Head start of the workers: imports of the admin API and of file watching would slow them."""

_REAP_SECONDS = 0.5

log = structlog.get_logger()


class Daemon:
    """Runs its components, and handles signals. `compose` builds it."""

    def __init__(
        self,
        *,
        options: DaemonOptions,
        components: DaemonComponents,
        warnings: Sequence[Diagnostic],
        upgrades: Upgrades,
        takeover: Takeover | None,
        surroundings: Surroundings,
        orphans: OrphanCleaner,
        parent: ParentWatch,
        hooks: Hooks,
        gpus: GpuMonitor,
        quarantine: GpuQuarantine,
        rates: RequestRates,
        autoscaler: Autoscaler,
        history: RateHistory,
        cpu: CpuMeter,
        compactor: MetricsCompactor,
        periodics: Sequence[Periodic],
    ) -> None:
        self.supervisor = components.supervisor
        self.reloader = components.reloader
        self.router = components.resources.router
        self.upgrades = upgrades
        self.history = history
        self.gpus = gpus
        self.quarantine = quarantine
        self._options = options
        self._components = components
        self._lifecycle = components.lifecycle
        self._resources = components.resources
        self._warnings = warnings
        self._takeover = takeover
        self._surroundings = surroundings
        self._orphans = orphans
        self._parent = parent
        self._hooks = hooks
        self._rates = rates
        self._autoscaler = autoscaler
        self._cpu = cpu
        self._compactor = compactor
        self._periodics = periodics
        self._duties = _duties(components)
        self._started_at = now()
        self._signals: frozenset[signal.Signals] = frozenset()
        self._ending: asyncio.Future[None] | None = None

    @property
    def state(self) -> Literal["starting", "running", "reloading", "stopping"]:
        phase = self._lifecycle.phase
        return "reloading" if phase == "running" and self.reloader.is_reloading else phase

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.reloader.desired.loaded.config

    async def run(self) -> int:
        """Starts, serves until it is told to stop, and stops. Returns the exit status."""
        state = self._options.previous.state if self._options.previous is not None else None
        replaces = {"replaces": state.pid} if state is not None else {}
        folder = self._resources.folder
        admin = api_address(self.config.admin, folder.path)
        log.info(
            Event.SERVD_STARTED,
            version=__version__,
            config=self._options.loaded.path,
            services=len(self.reloader.desired.plan.services),
            runtime_dir=folder.path,
            admin=admin,
            **replaces,
        )
        self._components.admin.open(self.config.admin, state.admin if state is not None else [])
        folder.tell_admin(admin)
        self._take_signals()
        self._parent.hold(self._parent_ended)
        for duty in self._duties:
            duty.start()
        if sys.platform != "linux":
            log.warning(Event.NOT_LINUX)
        for warning in self._warnings:
            log_warning(warning)
        self.quarantine.begin()
        self.gpus.follow(self.reloader.desired.plan)
        starts = await (self._first_start() if self._takeover is None else self._take_over())
        runs = starts or self._lifecycle.stopping.is_set()
        if runs:
            await self._lifecycle.stopping.wait()
        await self._stop()
        return Exit.OK if runs else Exit.START_FAILED

    async def _first_start(self) -> bool:
        """Starts everything; a signal to stop ends the wait. Returns False if `on_start_failure`
        applies.
        """
        await self._orphans.wait_for_addresses()
        what = f"Starting {len(self.reloader.desired.plan.services)} services"
        supervisor, systemd = self.supervisor, self._resources.systemd
        patience = asyncio.ensure_future(systemd.starting(what, lambda: supervisor.summary))
        starting = asyncio.ensure_future(self._start_all())
        starting.add_done_callback(lambda _: patience.cancel())
        stopping = asyncio.ensure_future(self._lifecycle.stopping.wait())
        either = {starting, stopping}
        await asyncio.wait(either, timeout=HEAD_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        await self._start_watching()
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            return True
        failed = starting.result()
        self._report_ready(**({"failed": sorted(failed)} if failed else {}))
        runs = not failed or self.config.daemon.on_start_failure != "exit"
        if runs:
            self._welcome()
        return runs

    async def _start_all(self) -> dict[str, str]:
        templates = self.supervisor.context.workers.templates
        try:
            await self.reloader.begin(FIRST_START)
            return await self.supervisor.settled()
        finally:
            templates.end_unused()

    async def _take_over(self) -> bool:
        """Replaces the previous daemon; returns False if that one continues."""
        assert self._takeover is not None
        if not await self._takeover.run():
            return False
        await self._start_watching()
        self._report_ready()
        return True

    async def _start_watching(self) -> None:
        """Starts everything other than the services."""
        self.reloader.watch()
        await self._components.admin.start(self)
        for periodic in self._periodics:
            periodic.start()

    def _report_ready(self, **details: object) -> None:
        status, resources = self.supervisor.summary, self._resources
        self._lifecycle.has_started = True
        resources.pool.claim_all()  # drops preloaded sockets that are not used
        resources.store.update(resources.pool)
        resources.systemd.ready(status)
        gc_tuning.exempt()
        log.info(Event.SERVD_READY, status=status, **details)

    def _welcome(self) -> None:
        """Tells a person at a terminal what to open, after the lines of the start."""
        admin, path = self.config.admin, self._options.loaded.path
        api = api_address(admin, self._resources.folder.path)
        page = page_of(admin.listen, path, api) if admin.enabled else ""
        self.router.sink.say(welcome(self.services_status(), page))

    def reload(self, request: ReloadRequest) -> asyncio.Future[ReloadReport]:
        """Requests a reload; the future returns its report."""
        return self._components.queue.ask(request)

    def status(self) -> Status:
        """Returns the current state of everything."""
        from servd.daemon.status import ConfigStatus, Status, reload_status

        reloader, desired = self.reloader, self.reloader.desired
        loaded = desired.loaded
        path = absolute(loaded.path) if not loaded.path.startswith("<") else loaded.path
        return Status(
            version=__version__,
            pid=os.getpid(),
            state=self.state,
            started_at=self._started_at,
            config=ConfigStatus(path, loaded.digest, desired.revision, desired.loaded_at),
            last_reload=reload_status(reloader.last) if reloader.last else None,
            unchanged_at=reloader.unchanged_at,
            last_act=reload_status(reloader.last_act) if reloader.last_act else None,
            services=self.services_status(),
            predecessor=self._takeover.draining if self._takeover is not None else None,
        )

    def app_metrics(self) -> AppMetrics:
        """Returns the metrics of apps. Loads prometheus_client."""
        return self._compactor.app_metrics

    def snapshot(self) -> Snapshot:
        """Returns the current measurements."""
        from servd.daemon.metrics.snapshot import snapshot

        history, gpus = self.reloader.history, self.gpus.snapshot
        found = snapshot(self.supervisor, history, self._dropped, gpus)
        return replace(found, gpu_errors=self.quarantine.shown())

    @property
    def _dropped(self) -> int:
        """Lines that the log lacks."""
        return self.router.sink.dropped + self.supervisor.context.workers.rates.dropped

    def services_status(self) -> list[ServiceStatus]:
        """Returns every service in the order of the graph, then those being removed."""
        from servd.daemon.status import View, service_status

        known = self.supervisor.services
        here = [known[s.name] for s in self.supervisor.plan.services if s.name in known]
        gone = sorted(self.supervisor.leaving, key=lambda service: service.plan.name)
        gpus = usage_of(self.gpus.snapshot, self.supervisor)
        newer = self._surroundings.inputs.newer
        view = View(self._cpu, self._rates, self._autoscaler, self.reloader.desired, newer, gpus)
        found = [service_status(service, view) for service in (*here, *gone)]
        self._cpu.forget_all_but({process.pid for s in found for process in s.processes})
        return found

    # signals

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], object]] = {
            signal.SIGTERM: partial(self._stop_requested, signal.SIGTERM),
            signal.SIGINT: partial(self._stop_requested, signal.SIGINT),
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGHUP: lambda: self.reload(ReloadRequest("SIGHUP")),
            signal.SIGUSR2: self.upgrades.ask,
            signal.SIGCHLD: self.supervisor.context.arbiter.manage_watchers,
        }
        self._signals = frozenset(handlers)
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        if self._options.early.asked_to_reload:
            self.reload(ReloadRequest("SIGHUP"))

    def _parent_ended(self) -> None:
        log.info(Event.STOPPING, reason="the parent process exited")
        self._lifecycle.stop()

    def _stop_requested(self, number: signal.Signals) -> None:
        if self._lifecycle.is_told_to_stop:
            log.warning(Event.STOPPING_AT_ONCE, signal=number.name)
            self._lifecycle.stopping.set()
            self.supervisor.kill()
            if self._takeover is not None:
                self._takeover.force_stop()
            return
        delay = self.config.daemon.stop_delay if self._lifecycle.has_started else None
        log.info(Event.STOPPING, signal=number.name, **({"delay": delay} if delay else {}))
        if delay:
            self._resources.systemd.stopping(delay + self._stop_seconds + MANAGER_SECONDS)
            self._ending = asyncio.ensure_future(self.upgrades.stop())
        self._lifecycle.stop(delay)

    def _reopen_logs(self) -> None:
        errors = self.router.print_files.reopen()
        try:
            self.router.sink.reopen()
        except StartError as error:
            errors.append(str(error))
        for message in errors:
            log.error(Event.LOG_NOT_REOPENED, error=message)
        if not errors:
            log.info(Event.LOG_REOPENED)

    # the stop

    async def _stop(self) -> None:
        self._lifecycle.stopping.set()
        self._options.give_up()
        timeout = self._stop_seconds
        self._resources.systemd.stopping(timeout + MANAGER_SECONDS)
        await self.upgrades.stop()
        await self._surroundings.stop()
        for periodic in self._periodics:
            await periodic.stop()
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        graceful = await self._stop_services(end)
        await self.gpus.stop()
        if self._takeover is not None:
            replaced = self.upgrades.replaced is not None
            remaining = max(0.0, end - loop.time())
            await self._takeover.wait_previous_gone(None if replaced else remaining)
        await self._orphans.stop()
        await self._hooks.stop()
        log.info(Event.SERVD_STOPPED, graceful=graceful, log_lines_dropped=self._dropped)
        self.router.close()
        if self.upgrades.replaced is None:
            await self._components.admin.stop()
        else:
            await self.upgrades.replaced.closing
            self.upgrades.replaced.heeding.cancel()
        self.supervisor.context.workers.registry.close()
        self.supervisor.context.workers.templates.close()
        # a signal must not change the exit status when the loop has restored the default actions
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)

    @property
    def _stop_seconds(self) -> float:
        configured = self.config.daemon.shutdown_timeout
        budget = stop_budget(self.supervisor.plan)
        return budget if configured == "auto" else float(configured)

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
        self._resources.pool.hand_over(self._resources.store.stored)
        return await self.supervisor.stop(seconds)

    async def _ended_before(self, name: str) -> None:
        """Waits until a service has ended in the previous daemon."""
        if self._takeover is not None:
            await self._takeover.ended(name)


def _duties(components: DaemonComponents) -> list[Periodic]:
    """Returns what a daemon has to do all the time: reap what it adopts, tell systemd it lives."""
    registry = components.supervisor.context.workers.registry
    duties = [Periodic(_REAP_SECONDS, ZombieReaper(registry.knows).look)]
    systemd = components.resources.systemd
    if systemd.watchdog:
        # a third of the limit, since one may be late (sd_watchdog_enabled(3) asks for half)
        duties.append(Periodic(systemd.watchdog / 3, systemd.alive))
    return duties
