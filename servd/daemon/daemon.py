"""The daemon: one loop that owns everything, from the first start to the exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from functools import partial

import structlog

from servd._version import __version__
from servd.config.load import Loaded
from servd.daemon.logs import LogSink, configure, now
from servd.daemon.runtime_dir import RuntimeDir, default_runtime_dir
from servd.daemon.systemd import Systemd
from servd.errors import Exit, StartError
from servd.host import inspect_host
from servd.plan.build import build
from servd.plan.model import Plan
from servd.supervisor.arbiter import ServdArbiter
from servd.supervisor.engine import Engine
from servd.supervisor.sockets import SocketPool
from servd.supervisor.supervisor import Supervisor, stop_budget
from servd.supervisor.watcher import StartGate
from servd.wire import listen_fds

log = structlog.get_logger()


def run(loaded: Loaded, runtime_dir: str | None = None) -> int:
    """Runs a valid configuration in the foreground until it is told to stop.

    Returns the exit status. Raises `StartError` when the daemon itself cannot begin: its log or
    its runtime folder cannot be had. `runtime_dir` is used where the config names none.
    """
    config = loaded.config
    inherited = listen_fds.take(os.environ)
    systemd = Systemd()
    given = config.daemon.runtime_dir
    is_root = os.geteuid() == 0
    folder = RuntimeDir(
        given or runtime_dir or default_runtime_dir(loaded.path, os.environ, is_root=is_root),
        ours=not given and "RUNTIME_DIRECTORY" not in os.environ,
    )
    folder.open()
    try:
        sink = LogSink(config.daemon.log)
        try:
            configure(sink, config.daemon.log.level)
            daemon = Daemon(loaded, folder, sink, systemd, SocketPool(inherited))
            return asyncio.run(daemon.main())
        finally:
            sink.close()
    finally:
        folder.close()


class Daemon:
    """Wires the parts together and turns signals into what they mean."""

    def __init__(
        self,
        loaded: Loaded,
        folder: RuntimeDir,
        sink: LogSink,
        systemd: Systemd,
        pool: SocketPool,
    ) -> None:
        self.loaded = loaded
        self.config = loaded.config
        self.folder = folder
        self.sink = sink
        self.systemd = systemd
        self.pool = pool
        self.host = inspect_host(self.config, os.environ, ports=True)
        self.plan: Plan = build(self.config, self.host, folder.path)

    async def main(self) -> int:
        """First start, then whatever the signals ask for, then the stop."""
        self.stopping = asyncio.Event()
        arbiter = ServdArbiter()
        places = self.config.daemon.start_concurrency or 2 * self.host.usable_cpus
        engine = Engine(
            arbiter=arbiter,
            pool=self.pool,
            gate=StartGate(places, arbiter.manage_watchers),
            sink=self.sink.put,
            now=now,
            notify_folder=self.folder.notify,
            environ=self.host.environ,
        )
        self.supervisor = Supervisor(engine)
        self._take_signals(arbiter)
        log.info(
            "servd started",
            version=__version__,
            config=self.loaded.path,
            services=len(self.plan.services),
            runtime_dir=self.folder.path,
        )
        if sys.platform != "linux":
            log.warning("not Linux: workers do not notice the daemon's death by signal")
        for warning in self.loaded.warnings:
            log.warning("config warning", warning=warning.summary())
        failed = await self._first_start()
        if failed and self.config.daemon.on_start_failure == "exit" and not self.stopping.is_set():
            await self._stop()
            return Exit.START_FAILED
        await self.stopping.wait()
        await self._stop()
        return Exit.OK

    async def _first_start(self) -> dict[str, str]:
        """Starts everything; a signal to stop ends the waiting."""
        longest = max((s.startup for s in self.plan.services), default=0.0)
        budget = longest * max(1, len(self.plan.services)) + 10
        self.systemd.starting(f"Starting {len(self.plan.services)} services", budget)
        starting = asyncio.ensure_future(self.supervisor.start(self.plan))
        stopping = asyncio.ensure_future(self.stopping.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            return {}
        failed = starting.result()
        status = self.supervisor.summary
        self.systemd.ready(status)
        log.info("servd ready", status=status, **({"failed": sorted(failed)} if failed else {}))
        return failed

    def _take_signals(self, arbiter: ServdArbiter) -> None:
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: partial(self._asked_to_stop, signal.SIGTERM),
            signal.SIGINT: partial(self._asked_to_stop, signal.SIGINT),
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGHUP: partial(self._not_yet, "SIGHUP"),
            signal.SIGUSR2: partial(self._not_yet, "SIGUSR2"),
            signal.SIGCHLD: arbiter.manage_watchers,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)

    def _asked_to_stop(self, number: signal.Signals) -> None:
        if self.stopping.is_set():
            log.warning("stopping at once", signal=number.name)
            self.supervisor.kill()
            return
        log.info("stopping", signal=number.name)
        self.stopping.set()

    def _reopen_logs(self) -> None:
        try:
            self.sink.reopen()
        except StartError as error:
            log.error("log not reopened", error=str(error))
        else:
            log.info("log reopened")

    def _not_yet(self, name: str) -> None:
        log.warning(f"{name} is not supported yet", signal=name)

    async def _stop(self) -> None:
        configured = self.config.daemon.shutdown_timeout
        timeout = stop_budget(self.plan) if configured == "auto" else float(configured)
        self.systemd.stopping(timeout + 5)
        graceful = await self.supervisor.stop(timeout)
        log.info("servd stopped", graceful=graceful, log_lines_dropped=self.sink.dropped)
