"""Taking the place of the daemon before."""

from __future__ import annotations

import asyncio
import contextlib

from servd.core.errors import ServdError
from servd.daemon.components import DaemonComponents
from servd.daemon.orphans import OrphanCleaner
from servd.daemon.reload.request import ReloadRequest
from servd.daemon.upgrade.old_daemon import OldDaemon
from servd.plan.model import Plan
from servd.supervisor.apply.inherit import InheritedState
from servd.supervisor.apply.transaction import ApplyError
from servd.supervisor.supervisor import start_budget
from servd.supervisor.worker_registry import orphaned_workers

_AT_ONCE = 5.0
"""Seconds in which the daemon before ends when it is told to end at once."""


class Takeover:
    """A daemon's way to the place of another. `done` says whether it is there."""

    def __init__(self, parts: DaemonComponents, predecessor: OldDaemon) -> None:
        self.predecessor = predecessor
        self.done = False
        self._parts = parts
        self._looking: asyncio.Task[None] | None = None
        self._orphans: OrphanCleaner | None = None
        predecessor.taken = lambda: [*parts.pool.bound]
        predecessor.admin = lambda: [item.key for item in parts.admin.handed()]
        predecessor.taken_over = self._taken_over
        predecessor.reload = self._reload

    async def take_over(self, plan: Plan) -> bool:
        """Starts everything beside the daemon before; True once that has left it to us, False
        where it goes on.
        """
        left, supervisor, reloader = (
            self.predecessor.handover, self._parts.supervisor, self._parts.reloader
        )  # fmt: skip
        self.predecessor.listen()
        self.predecessor.expect(start_budget(plan))
        supervisor.numbers = dict(left.numbers)
        reloader.generation = left.generation + (reloader.loaded.digest != left.digest)
        heritage = InheritedState(left.services, self.predecessor)
        async with reloader.turn:
            taking = asyncio.ensure_future(supervisor.take_over(plan, heritage))
            stopping = asyncio.ensure_future(supervisor.engine.stopping.wait())
            await asyncio.wait({taking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            taking.cancel()
            try:
                await taking
            except asyncio.CancelledError:
                self.predecessor.failed("it was told to stop")
            except ApplyError as error:
                self.predecessor.failed(str(error), error.last_lines)
            except ServdError as error:
                self.predecessor.failed(str(error))
        return self.done

    def _taken_over(self) -> None:
        """From now on it is this daemon that runs."""
        self.done = True
        self._parts.folder.own()
        self._parts.admin.own()
        self._parts.systemd.mute = False
        self._looking = asyncio.get_running_loop().create_task(self._look_after_its_workers())

    def _reload(self) -> None:
        self._parts.reloader.request(ReloadRequest("asked for while servd was replaced"))

    async def _look_after_its_workers(self) -> None:
        """Where the daemon before is killed while it drains, its workers are ours to end."""
        await self.predecessor.gone.wait()
        folder, pid = self._parts.folder.private, self.predecessor.handover.pid
        self._orphans = OrphanCleaner(orphaned_workers(folder, pid), self._parts.supervisor.plan)
        await self._orphans.make_room()

    @property
    def draining(self) -> int | None:
        """The pid of the daemon before, while it drains."""
        drains = self.done and not self.predecessor.gone.is_set()
        return self.predecessor.handover.pid if drains else None

    async def see_off(self, seconds: float | None) -> None:
        """Returns once the daemon before has ended; after so many seconds it is told to end at
        once. (None: all the time that it needs.)
        """
        if not self.done:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.predecessor.gone.wait(), seconds)
        self.hurry()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.predecessor.gone.wait(), _AT_ONCE)
        if self._looking is not None:
            self._looking.cancel()
        if self._orphans is not None:
            await self._orphans.stop()

    def hurry(self) -> None:
        """Tells the daemon before to end at once: it has been draining since it was replaced."""
        if self.draining is not None:
            self.predecessor.hurry()
