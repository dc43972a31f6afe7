"""Uvicorn's server on inherited sockets: ready when it says so, drained when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

import uvicorn
from uvicorn.server import ServerState

from servd.http.base_server import BaseServer, ServerSocket
from servd.wire.names import STARTUP_FAILURE
from servd.wire.notify import notify
from servd.wire.worker_spec import AppSpec, WorkerSpec
from servd.worker import gc_tuning
from servd.worker.application import Application
from servd.worker.asgi.requests import exempt_paths
from servd.worker.drain import Drain
from servd.worker.slow_clients import SlowClients
from servd.worker.threads import size_pools
from servd.worker.watchdog import Watchdog

_LAST_WORDS = 0.2
"""Seconds for probes that are under way when a worker ends."""


def uvicorn_config(spec: AppSpec, application: Any) -> uvicorn.Config:
    """Uvicorn's configuration for a finished ASGI 3 application.

    What servd does better or elsewhere is off: logging, proxy headers, limits, TLS, signals.
    """
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
    # `load` would call a class or function without arguments to see whether it is a factory
    config.loaded_app = application
    return config


class WorkerServer(BaseServer):
    """A server that is ready when its app has started, and that drains on SIGTERM and SIGINT."""

    def __init__(
        self, application: Application, spec: WorkerSpec, listeners: list[ServerSocket]
    ) -> None:
        assert spec.app is not None
        super().__init__(uvicorn_config(spec.app, application.whole), self._log)
        self.spec = spec.app
        self.listeners = listeners
        self.application = application
        self.requests = application.requests
        self.watchdog = Watchdog(spec.watchdog)
        self.accepts_at_once = spec.accept
        self.on_loop: Callable[[asyncio.AbstractEventLoop], None] = _nothing
        self.report: Callable[..., None] = _nothing
        self.say: Callable[..., None] = _nothing
        self._probes = ServerState()
        self._accepted: WeakSet[asyncio.Protocol] = WeakSet()
        self._drain: Drain | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals wake the loop instead of being noticed at Uvicorn's next tick."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.begin_exit)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the app, accepts unless that is to wait for the daemon's word, says READY=1."""
        loop = asyncio.get_running_loop()
        self.on_loop(loop)
        self.requests.loop = loop
        size_pools(loop, self.spec.threads, note=bool(self.requests.deadlines.timers))
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        self.servers = []
        await self.on_tick(0)
        self.started = True
        if self.accepts_at_once:
            await self.accept()
        gc_tuning.resume()
        self.watchdog.start()
        notify("READY=1")

    async def accept(self) -> None:
        """Accepts connections from now on, unless the exit has begun."""
        if self.servers or self.should_exit:
            return
        http = self._protocol_class()

        def protocol() -> asyncio.Protocol:
            made = self.connection(http)
            self._accepted.add(made)
            return made

        timeouts = self.spec.timeouts
        self.accept_on(self.listeners, protocol, handshake=timeouts.headers)
        slow = SlowClients(self.server_state.connections, timeouts.headers, timeouts.body)
        slow.begin(asyncio.get_running_loop())

    def _log(self, level: str, event: str, **fields: object) -> None:
        self.say(level, event, **fields)

    def _protocol_class(self) -> Any:
        """Uvicorn's protocol class, thriftier where it is the one for httptools."""
        http: Any = self.config.http_protocol_class
        if not http.__module__.endswith(".httptools_impl"):
            from servd.worker.h11_protocol import PatientH11Protocol

            self.requests.doubts_lengths = True
            return PatientH11Protocol
        from servd.worker.keep_alive import IdleConnections, ThriftyProtocol

        class Protocol(ThriftyProtocol):
            idle = IdleConnections(self.server_state.connections, self.spec.timeouts.keep_alive)
            head_limit = self.spec.limits.head

        return Protocol

    async def probe(self, sock: socket.socket) -> None:
        """Serves a connection of the daemon, which asks for the health of this worker: the app
        itself, past everything that is done around a request.
        """
        config = copy.copy(self.config)
        config.loaded_app = quietly(self.application.probed)
        made = self.connection(config.http_protocol_class, self._probes, config)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: made, sock)

    def hurry(self) -> None:
        """Ends a drain now."""
        if self._drain is not None:
            self._drain.hurry()

    def adjust(self, health_path: str, watchdog: float | None) -> None:
        """Takes over what may change while it runs."""
        self.requests.exempt = exempt_paths(self.spec.root_path, health_path)
        self.watchdog.every(watchdog)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Holds a task until it is done (the loop itself does not)."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def main_loop(self) -> None:
        """Keeps the date header fresh until the exit begins."""
        while not self._exit.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exit.wait(), 1.0)

    async def on_tick(self, counter: int) -> bool:
        """Uvicorn's own, for the date header; whether to exit is decided in `main_loop`."""
        await super().on_tick(counter)
        return False

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops accepting, drains, then stops the app."""
        for server in self.servers:
            server.close()
        for sock, _ in self.listeners:
            sock.close()
        self._drain = Drain(
            self.server_state,
            self._accepted,
            self.requests,
            self.spec.timeouts.keep_alive,
            lambda counts: self.report(draining=counts),
        )
        self._drain.begin(self.spec.timeouts.drain)
        notify("STOPPING=1")
        await self._drain.finish()
        await self._end_probes()
        await self.lifespan.shutdown()

    async def _end_probes(self) -> None:
        """The daemon has gone on to other workers."""
        for connection in list(self._probes.connections):
            connection.transport.abort()
        if tasks := list(self._probes.tasks):
            await asyncio.sleep(0)  # they know now that nobody listens
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_LAST_WORDS)


def quietly(app: Any) -> Any:
    """`app`, whose calls may be cancelled without a word."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return call


def _nothing(*_: object, **__: object) -> None:
    """What is done before anybody has asked for more."""
