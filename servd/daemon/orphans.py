"""Processes without their parent: the workers that a killed daemon left, and, as PID 1 of a
container, whatever the kernel hands to us.
"""

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

_LOOK_EVERY = 0.05
_FOR_ADDRESSES = 10.0
"""Seconds for which addresses are waited for that the left workers may still hold."""

log = structlog.get_logger()


class OrphanCleaner:
    """Lets the workers of a killed daemon drain, and ends those that do not."""

    def __init__(self, left: Sequence[OrphanedWorker], plan: Plan) -> None:
        self._left = list(left)
        self._plan = plan
        self._patience = max((s.drain for s in plan.services), default=0.0) + ORPHAN_SECONDS
        self._task: asyncio.Task[None] | None = None

    async def make_room(self) -> None:
        """Returns once no address of the plan is held any more, or nobody is left who could, or it
        has taken too long. What is left is looked after from then on.
        """
        if not self._left:
            return
        pids = sorted(left.pid for left in self._left)
        log.warning(Event.ORPHANS_DRAINING, pids=pids)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._see_off())
        end = loop.time() + _FOR_ADDRESSES
        while loop.time() < end and not self._task.done() and _held(self._plan):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_EVERY)  # nobody tells when an address is free

    async def _see_off(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._patience
        while loop.time() < end:
            self._left = [left for left in self._left if left.lives]
            if not self._left:
                log.info(Event.ORPHANS_ENDED)
                return
            await asyncio.sleep(_LOOK_EVERY)
        for left in self._left:
            left.kill()
        log.warning(Event.ORPHANS_KILLED, pids=[x.pid for x in self._left])

    async def stop(self) -> None:
        """Ends those that are still there."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            for left in self._left:
                left.kill()


def _held(plan: Plan) -> bool:
    """Whether somebody has one of the addresses that servd or its programs will bind."""
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
    """As PID 1: reaps processes whose parents have gone. Who is started here is reaped by who
    started it, at once: what has been dead for two looks is nobody else's.
    """

    def __init__(self) -> None:
        self._dead: set[int] = set()

    async def look(self) -> None:
        """Reaps what was dead at the last look already."""
        dead = {pid for pid in _children() if is_dead(pid)}
        for pid in dead & self._dead:
            _reap(pid)
        self._dead = dead


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _children() -> Collection[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []
