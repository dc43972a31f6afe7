"""Processes without a parent: workers of a killed daemon, and zombies for PID 1 to reap."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Sequence

import structlog

from servd.core import bind
from servd.core.events import Event
from servd.core.orphans import OrphanedWorker
from servd.core.processes import children_of, ended_child, is_dead
from servd.plan.model import Plan
from servd.wire.graces import ORPHAN_SECONDS

_POLL_SECONDS = 0.05
_LOOKS = 3
"""Looks in which a dead child of unknown origin is left to the code that may have started it."""

_ADDRESS_SECONDS = 10.0
"""Longest wait for addresses that orphaned workers hold."""

log = structlog.get_logger()


class OrphanCleaner:
    """Lets the workers of a killed daemon drain, and kills those that do not end in time."""

    def __init__(self, orphans: Sequence[OrphanedWorker], plan: Plan) -> None:
        self._orphans = list(orphans)
        self._plan = plan
        self._seconds = max((s.stop_seconds for s in plan.services), default=0.0) + ORPHAN_SECONDS
        self._task: asyncio.Task[None] | None = None

    async def wait_for_addresses(self) -> None:
        """Waits, up to `_ADDRESS_SECONDS`, until no orphan holds an address of the plan."""
        if not self._orphans:
            return
        pids = sorted(orphan.pid for orphan in self._orphans)
        log.warning(Event.ORPHANS_DRAINING, pids=pids)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._clean())
        end = loop.time() + _ADDRESS_SECONDS
        while loop.time() < end and not self._task.done() and _held(self._plan):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)  # no event says that an address is free

    async def _clean(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        while loop.time() < end:
            self._orphans = [orphan for orphan in self._orphans if orphan.ask_rest()]
            if not self._orphans:
                log.info(Event.ORPHANS_ENDED)
                return
            await asyncio.sleep(_POLL_SECONDS)
        for orphan in self._orphans:
            orphan.kill()
        log.warning(Event.ORPHANS_KILLED, pids=[orphan.pid for orphan in self._orphans])

    async def stop(self) -> None:
        """Kills the remaining orphans."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            for orphan in self._orphans:
                orphan.kill()


def _held(plan: Plan) -> bool:
    """Whether another process holds an address that servd or its commands will bind."""
    addresses = [s.address for service in plan.services for s in service.sockets]
    addresses += [a for service in plan.services if service.binds_itself for a in service.addresses]
    for address in addresses:
        if address.kind != "tcp" or not address.port:
            continue
        for family, host in bind.hosts(address):
            try:
                bind.bind_tcp(family, host, address.port).close()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return True
    return False


class ZombieReaper:
    """Reaps what the daemon has adopted, seen dead in several looks: its own children are reaped
    sooner by the code that started them. `known` tells the pids of workers.
    """

    def __init__(self, known: Callable[[int], bool]) -> None:
        self._known = known
        self._looks: dict[int, int] = {}

    def look(self) -> None:
        """Reaps what was dead in the last looks already."""
        dead = [pid for pid in _children() if not self._known(pid) and is_dead(pid)]
        self._looks = {pid: self._looks.get(pid, 0) + 1 for pid in dead}
        for pid, looks in self._looks.items():
            if looks > _LOOKS:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _children() -> list[int]:
    """Returns the daemon's children; none while no child has ended, which costs one call."""
    return children_of(os.getpid()) if ended_child() is not None else []
