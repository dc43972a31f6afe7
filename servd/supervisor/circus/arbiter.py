"""Circus's arbiter on our loop: woken by SIGCHLD, without endpoints, without signals of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from circus.arbiter import Arbiter
from tornado.ioloop import IOLoop

from servd.supervisor.circus.faults import NoController, quiet_logging, without_name_lookup
from servd.supervisor.circus.watcher import ServiceWatcher

BACKSTOP_SECONDS = 1.0
"""Dead workers are noticed by SIGCHLD; this looks again, should a signal ever be lost."""


class ServdArbiter(Arbiter):  # type: ignore[misc]  # Circus has no types
    """Holds the watchers and reaps their processes, and only theirs."""

    watchers: list[ServiceWatcher]

    def __init__(self) -> None:
        quiet_logging()
        with without_name_lookup():
            super().__init__([], "", "", check_delay=BACKSTOP_SECONDS, loop=IOLoop.current())
        self._backstop: asyncio.Task[None] | None = None

    def _init_context(self, context: Any) -> None:
        """No ZeroMQ context, and a controller that opens nothing."""
        self.context = None
        self._ensure_ioloop()
        self.ctrl = NoController()

    def initialize(self) -> None:
        """Sockets are bound and watchers added by the supervisor; no event socket is opened."""

    def begin(self) -> None:
        """Starts looking after what is added, unless it does already."""
        if self._backstop is not None:
            return
        self._running = True
        self._backstop = asyncio.get_running_loop().create_task(self._look_again())

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(self.check_delay)
            self.manage_watchers()

    def add(self, watcher: ServiceWatcher) -> None:
        """Takes a watcher in. (Circus's `add_watcher` can only make its own kind.)"""
        watcher.initialize(None, self.sockets, self)
        self.watchers.append(watcher)
        self._watchers_names[watcher.name.lower()] = watcher

    def remove(self, watcher: ServiceWatcher) -> None:
        """Lets a stopped watcher go."""
        self.watchers.remove(watcher)
        self._watchers_names.pop(watcher.name.lower(), None)

    def reap_processes(self) -> None:
        """Reaps by pid. (Circus waits for any child, and so takes the exit status of the daemon's
        other subprocesses away from whoever waits for them.)
        """
        for watcher in list(self.watchers):
            watcher.reap_processes()

    def manage_watchers(self) -> None:
        """Reaps, then fills empty slots. Without Circus's one lock for everything, under which a
        watcher that stops slowly keeps every other from being looked after.
        """
        self.reap_processes()
        if not self._stopping:
            for watcher in list(self.watchers):
                watcher.manage_processes()

    async def end(self) -> None:
        """Stops looking after anything; the supervisor has stopped the watchers before."""
        self._stopping = True
        self._running = False
        if self._backstop is not None:
            self._backstop.cancel()
