"""Circus's arbiter on the daemon's loop: woken by SIGCHLD, without endpoints or own signals."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import structlog
from circus.arbiter import Arbiter
from tornado.ioloop import IOLoop

from servd.core.events import Event
from servd.core.processes import ended_child
from servd.supervisor.circus.faults import NoController, quiet_logging, without_name_lookup
from servd.supervisor.circus.watcher import ServiceWatcher

BACKSTOP_SECONDS = 1.0
"""How often the kernel is asked for dead workers, in case a SIGCHLD is lost."""

_WHOLE_LOOKS = 10
"""Every such look is at each worker, in case one was reaped by other code in the daemon, and at
each slot.
"""

log = structlog.get_logger()


class ServdArbiter(Arbiter):  # type: ignore[misc]  # Circus has no types
    """Holds the watchers; reaps their processes and no others."""

    watchers: list[ServiceWatcher]

    def __init__(self, ended: Callable[[], int | None] | None = None) -> None:
        self._ended_child = ended or ended_child
        quiet_logging()
        with without_name_lookup():
            super().__init__([], "", "", check_delay=BACKSTOP_SECONDS, loop=IOLoop.current())
        self._backstop: asyncio.Task[None] | None = None

    def _init_context(self, context: Any) -> None:
        """Makes no ZeroMQ context, and a controller that opens nothing."""
        self.context = None
        self._ensure_ioloop()
        self.ctrl = NoController()

    def initialize(self) -> None:
        """Does nothing: the supervisor binds sockets and adds watchers; events need no socket."""

    def begin(self) -> None:
        """Starts looking after the watchers, once."""
        if self._backstop is not None:
            return
        self._running = True
        self._backstop = asyncio.get_running_loop().create_task(self._look_again())

    async def _look_again(self) -> None:
        """Ends with the daemon only: a fault of one look does not end the next one."""
        for look in itertools.count(1):
            await asyncio.sleep(self.check_delay)
            if look % _WHOLE_LOOKS == 0:
                self._look_at_all()
            elif self._ended_child() is None:
                continue
            self.manage_watchers()

    def add(self, watcher: ServiceWatcher) -> None:
        """Adds a watcher. (Circus's `add_watcher` can only make its own kind.)"""
        watcher.initialize(None, self.sockets, self)
        self.watchers.append(watcher)
        self._watchers_names[watcher.name.lower()] = watcher

    def remove(self, watcher: ServiceWatcher) -> None:
        """Removes a stopped watcher."""
        self.watchers.remove(watcher)
        self._watchers_names.pop(watcher.name.lower(), None)

    def reap_processes(self) -> None:
        """Reaps by pid. (Circus reaps any child, and so takes other subprocesses' statuses.) Asks
        the kernel who has ended: without that, each look costs a call for every worker.
        """
        before = None
        while (pid := self._ended_child()) is not None:
            watcher = next((each for each in self.watchers if pid in each.processes), None)
            if watcher is None or pid == before:  # another child, or one that stays for now
                self._look_at_all()
                return
            _guarded(watcher, watcher.reap_processes)
            before = pid

    def _look_at_all(self) -> None:
        for watcher in list(self.watchers):
            _guarded(watcher, watcher.reap_processes)

    def manage_watchers(self) -> None:
        """Reaps, then fills empty slots. (Circus does so under one lock, so that a watcher that
        stops slowly holds up all others.)
        """
        self.reap_processes()
        if not self._stopping:
            for watcher in list(self.watchers):
                if watcher.is_full:
                    continue
                _guarded(watcher, watcher.manage_processes)
                if not watcher.limiter.is_open:
                    break  # the others have their turn when a worker is ready

    async def end(self) -> None:
        """Stops looking after the watchers, which the supervisor has stopped before."""
        self._stopping = True
        self._running = False
        if self._backstop is not None:
            self._backstop.cancel()


def _guarded(watcher: ServiceWatcher, act: Callable[[], None]) -> None:
    """Acts for one service. A fault is logged, and keeps no other from being looked after."""
    try:
        act()
    except Exception:
        log.exception(Event.INTERNAL_ERROR, service=watcher.launch.plan.name)
