"""Uvicorn's server on inherited sockets: reports when it is ready, and drains when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import uvicorn
from uvicorn.server import ServerState

from servd.core import gc_tuning
from servd.http.base_server import BaseServer, ServerSocket
from servd.wire.graces import PROBE_END_SECONDS
from servd.wire.names import STARTUP_FAILURE
from servd.wire.notify import notify
from servd.wire.worker_spec import AppSpec, WorkerSpec
from servd.worker.application import Application
from servd.worker.asgi.requests import exempt_paths
from servd.worker.drain import Drain
from servd.worker.events import enable_our_loggers
from servd.worker.reporter import Reporter
from servd.worker.slow_clients import SlowClients
from servd.worker.stacks import EndWatch
from servd.worker.threads import size_pools
from servd.worker.watchdog import Watchdog


def uvicorn_config(spec: AppSpec, application: Any) -> uvicorn.Config:
    """Returns Uvicorn's configuration for an ASGI 3 application; what servd replaces is off."""
    config = uvicorn.Config(
        application,
        interface="asgi3",
        http=spec.uvicorn.http,
        loop=spec.uvicorn.loop,
        ws=spec.uvicorn.ws,
        lifespan=spec.uvicorn.lifespan,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        root_path=spec.root_path,
        h11_max_incomplete_event_size=spec.limits.head,
        ws_max_size=spec.uvicorn.ws_max_size,
        ws_ping_interval=spec.uvicorn.ws_ping_interval,
        ws_ping_timeout=spec.uvicorn.ws_ping_timeout,
        backlog=spec.backlog,
        timeout_keep_alive=spec.timeouts.keep_alive,  # type: ignore[arg-type]  # call_later takes floats
    )
    config.load()
    # `load` calls a class or function without arguments to test whether it is a factory
    config.loaded_app = application
    if getattr(config.ws_protocol_class, "__module__", "").endswith(".wsproto_impl"):
        from servd.worker.wsproto_protocol import WsprotoProtocol

        config.ws_protocol_class = WsprotoProtocol
    return config


class WorkerServer(BaseServer):
    """Is ready when its app has started; drains on SIGTERM and SIGINT."""

    def __init__(
        self,
        application: Application,
        spec: WorkerSpec,
        listeners: list[ServerSocket],
        reporter: Reporter,
    ) -> None:
        assert spec.app is not None
        super().__init__(uvicorn_config(spec.app, application.whole), reporter.writer.event)
        self.spec = spec.app
        self.listeners = listeners
        self._asks_for_certificates = spec.tls is not None and spec.tls.client_auth != "none"
        self._unix_names = {
            sock.getsockname(): item.path
            for (sock, _), item in zip(listeners, spec.sockets, strict=False)
            if item.path
        }
        self.reporter = reporter
        self.application = application
        self.requests = application.requests
        self.watchdog = Watchdog(spec.watchdog)
        self.accepts_at_start = spec.accept
        self._probes = ServerState()
        self._accepted: WeakSet[asyncio.Protocol] = WeakSet()
        self._drain: Drain | None = None
        self._balance = application.requests.balance
        self.server_state.connections = self._balance.connections

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals in the loop immediately; Uvicorn would wait for its next tick."""
        self._take_signals()
        yield

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.begin_exit)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the app, accepts unless the daemon decides when, and sends READY=1."""
        loop = asyncio.get_running_loop()
        self.requests.loop = loop
        size_pools(loop, self.spec.threads)
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.reporter.channel.send(failed="the app failed at its startup", app_failed=True)
            sys.exit(STARTUP_FAILURE)
        self.servers = []
        self._take_signals()  # the app's startup may have set its own
        enable_our_loggers()
        await self.on_tick(0)
        self.started = True
        if self.accepts_at_start:
            await self.accept()
        gc_tuning.resume()
        self.watchdog.start()
        notify("READY=1")

    async def accept(self) -> None:
        """Starts accepting connections, unless the exit has begun."""
        if self.servers or self.should_exit:
            return
        http = self._protocol_class()

        def protocol() -> asyncio.Protocol:
            made = self.connection(http)
            self._accepted.add(made)
            return made

        self.accept_on(self.listeners, protocol, self.spec.timeouts.headers, self._balance)
        limits = self.spec.timeouts
        slow = SlowClients(self.server_state.connections, limits.headers, limits.body)
        slow.begin(asyncio.get_running_loop())

    def _protocol_class(self) -> Any:
        """Returns servd's variant of Uvicorn's protocol class, for httptools or h11."""
        http: Any = self.config.http_protocol_class
        if not http.__module__.endswith(".httptools_impl"):
            from servd.worker.h11_protocol import PatientH11Protocol

            self.requests.doubts_lengths = True

            class H11Protocol(PatientH11Protocol):
                head_limit = self.spec.limits.head
                handshake_limit = self.spec.timeouts.headers
                unix_names = self._unix_names
                tells_certificate = self._asks_for_certificates

            return H11Protocol
        from servd.worker.cycle import WaitingHeads
        from servd.worker.keep_alive import IdleConnections, ThriftyProtocol

        class Protocol(ThriftyProtocol):
            idle = IdleConnections(self.server_state.connections, self.spec.timeouts.keep_alive)
            heads = WaitingHeads(asyncio.get_running_loop())
            head_limit = self.spec.limits.head
            handshake_limit = self.spec.timeouts.headers
            unix_names = self._unix_names
            tells_certificate = self._asks_for_certificates

        return Protocol

    async def probe(self, sock: socket.socket) -> None:
        """Serves a health probe of the daemon: the app alone, without servd's middleware."""
        config = copy.copy(self.config)

        async def quiet(scope: Any, receive: Any, send: Any) -> None:
            with contextlib.suppress(asyncio.CancelledError):  # would be logged
                try:
                    await self.application.probed(scope, receive, send)
                except Exception as error:
                    self.requests.gpu_errors.saw(error)
                    raise

        config.loaded_app = quiet
        made = self.connection(config.http_protocol_class, self._probes, config)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: made, sock)

    def force_stop(self) -> None:
        """Ends a drain now."""
        if self._drain is not None:
            self._drain.force_stop()

    def adjust(self, health_path: str, watchdog: float | None, oom_limit: int) -> None:
        """Applies settings that may change while the worker runs."""
        self.requests.exempt = exempt_paths(self.spec.root_path, health_path)
        self.watchdog.set_period(watchdog)
        self.requests.gpu_errors.limit = oom_limit

    async def main_loop(self) -> None:
        """Updates the date header every second until the exit begins."""
        while not self._exit.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exit.wait(), 1.0)

    async def on_tick(self, counter: int) -> bool:
        """Updates the date header; `main_loop` decides when to exit."""
        await super().on_tick(counter)
        self.requests.note_waits()
        if self._drain is not None:
            self._drain.ask_to_close()
        return False

    async def _tick(self) -> None:
        """Updates the date header during the drain."""
        while True:
            await asyncio.sleep(1.0)
            await self.on_tick(0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops accepting, drains, then stops the app."""
        for server in self.servers:
            server.close()
        for sock, _ in self.listeners:
            sock.close()
        limits, report = self.spec.timeouts, self.reporter.draining
        state, accepted = self.server_state, self._accepted
        self._drain = Drain(
            state,
            accepted,
            self.requests,
            limits.keep_alive,
            report,
            is_last=lambda: self._balance.is_alone,
        )
        self._drain.begin(limits.drain)
        notify("STOPPING=1")
        ticking = asyncio.get_running_loop().create_task(self._tick())
        await self._drain.finish()
        ticking.cancel()
        await self._end_probes()
        end = EndWatch(self.reporter.writer, limits.shutdown)
        end.start()
        await self.lifespan.shutdown()
        end.app_ended.set()

    async def _end_probes(self) -> None:
        for connection in list(self._probes.connections):
            connection.transport.abort()
        if tasks := list(self._probes.tasks):
            await asyncio.sleep(0)  # lets them see the disconnect
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=PROBE_END_SECONDS)
