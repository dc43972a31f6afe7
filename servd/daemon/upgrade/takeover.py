"""Taking the place of the previous daemon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection

from servd.core.errors import ServdError
from servd.daemon.components import DaemonComponents
from servd.daemon.orphans import OrphanCleaner
from servd.daemon.reload.request import ReloadRequest
from servd.daemon.upgrade.old_daemon import OldDaemon
from servd.supervisor.apply.inherit import InheritedState
from servd.supervisor.apply.mode import take_over
from servd.supervisor.apply.transaction import ApplyError
from servd.supervisor.supervisor import start_budget
from servd.supervisor.worker_registry import orphaned_workers
from servd.wire.graces import PREVIOUS_DAEMON_SECONDS


class Takeover:
    """A daemon's way to the place of the `previous` one. `done` says whether it is there."""

    def __init__(self, components: DaemonComponents, previous: OldDaemon) -> None:
        self.previous = previous
        self.done = False
        self._components = components
        self._watching: asyncio.Task[None] | None = None
        self._orphans: OrphanCleaner | None = None

    async def run(self) -> bool:
        """Starts everything next to the previous daemon. Returns True once that has left its place,
        False where it continues.
        """
        reloader, lifecycle = self._components.reloader, self._components.lifecycle
        self.previous.listen(on_reload=self._reload)
        self.previous.expect(start_budget(reloader.desired.plan))
        inherited = InheritedState(self.previous.state.services, self)
        taking = asyncio.ensure_future(reloader.begin(take_over(inherited)))
        stopping = asyncio.ensure_future(lifecycle.stopping.wait())
        await asyncio.wait({taking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        taking.cancel()
        try:
            await taking
        except asyncio.CancelledError:
            self.previous.failed("it was told to stop")
        except ApplyError as error:
            self.previous.failed(str(error), error.last_lines)
        except ServdError as error:
            self.previous.failed(str(error))
        return self.done

    # what the supervisor asks of the previous daemon

    async def agree(self, at_once: Collection[str]) -> None:
        """All is ready here: from now on it is this daemon that runs. Raises `ServdError` where the
        previous one continues.
        """
        components = self._components
        resources = components.resources
        admin = [item.key for item in components.admin.handed()]
        await self.previous.agree(at_once, [*resources.pool.bound], admin)
        self.done = True
        resources.folder.own()
        components.admin.own()
        resources.systemd.mute = False
        self._watching = asyncio.get_running_loop().create_task(self._clean_up_after_it())
        self.previous.confirm()

    async def released(self, name: str) -> None:
        """Returns once the workers that a service has there accept no more."""
        await self.previous.released(name)

    async def ended(self, name: str) -> None:
        """Returns once the workers that a service has there have ended."""
        await self.previous.ended(name)

    def _reload(self) -> None:
        self._components.queue.ask(ReloadRequest("asked for while servd was replaced"))

    async def _clean_up_after_it(self) -> None:
        """Where the previous daemon is killed while it drains, its workers are ours to end."""
        await self.previous.gone.wait()
        folder, pid = self._components.resources.folder.private, self.previous.state.pid
        plan = self._components.reloader.desired.plan
        self._orphans = OrphanCleaner(orphaned_workers(folder, pid), plan)
        await self._orphans.make_room()

    @property
    def draining(self) -> int | None:
        """The pid of the previous daemon, while it drains."""
        drains = self.done and not self.previous.gone.is_set()
        return self.previous.state.pid if drains else None

    async def wait_previous_gone(self, seconds: float | None) -> None:
        """Waits for the previous daemon to exit; after `seconds` orders it to stop now. None: no
        limit.
        """
        if not self.done:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.previous.gone.wait(), seconds)
        self.force_stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.previous.gone.wait(), PREVIOUS_DAEMON_SECONDS)
        if self._watching is not None:
            self._watching.cancel()
        if self._orphans is not None:
            await self._orphans.stop()

    def force_stop(self) -> None:
        """Tells the previous daemon to end at once: it has been draining since it was replaced."""
        if self.draining is not None:
            self.previous.force_stop()
