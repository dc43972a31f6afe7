"""Processes without a parent: workers of a killed daemon, and zombies for PID 1 to reap."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Collection, Sequence

import structlog

from servd.core import bind
from servd.core.events import Event
from servd.plan.model import Plan
from servd.supervisor.worker_registry import OrphanedWorker, is_dead
from servd.wire.graces import ORPHAN_SECONDS

_POLL_SECONDS = 0.05
_ADDRESS_SECONDS = 10.0
"""Longest wait for addresses that orphaned workers hold."""

log = structlog.get_logger()


class OrphanCleaner:
    """Lets the workers of a killed daemon drain, and kills those that do not end in time."""

    def __init__(self, orphans: Sequence[OrphanedWorker], plan: Plan) -> None:
        self._orphans = list(orphans)
        self._plan = plan
        self._seconds = max((s.drain for s in plan.services), default=0.0) + ORPHAN_SECONDS
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
            self._orphans = [orphan for orphan in self._orphans if orphan.lives]
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
    """As PID 1: reaps adopted zombies, seen dead in two scans: the daemon's own children are reaped
    at once by the code that started them.
    """

    def __init__(self) -> None:
        self._dead: set[int] = set()

    def look(self) -> None:
        """Reaps what was dead in the last scan already."""
        dead = {pid for pid in _children() if is_dead(pid)}
        for pid in dead & self._dead:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._dead = dead


def _children() -> Collection[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []
