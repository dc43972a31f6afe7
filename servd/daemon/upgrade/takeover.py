"""Takes over from the previous daemon."""

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
    """Takes over from the `previous` daemon. `done` says whether it has."""

    def __init__(self, components: DaemonComponents, previous: OldDaemon) -> None:
        self.previous = previous
        self.done = False
        self._components = components
        self._cleaning: asyncio.Task[None] | None = None
        self._orphans: OrphanCleaner | None = None

    async def run(self) -> bool:
        """Starts everything next to the previous daemon. Returns False if that one continues."""
        reloader, lifecycle = self._components.reloader, self._components.lifecycle
        request = ReloadRequest("requested during the upgrade")
        self.previous.listen(on_reload=lambda: self._components.queue.ask(request))
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
            self.previous.failed("the new servd received a request to stop")
        except ApplyError as error:
            self.previous.failed(str(error), error.last_lines)
        except ServdError as error:
            self.previous.failed(str(error))
        return self.done

    # called by the supervisor

    async def agree(self, at_once: Collection[str]) -> None:
        """Takes over: all is ready here. Raises `ServdError` if the previous daemon continues."""
        components = self._components
        resources = components.resources
        admin = [item.key for item in components.admin.handed()]
        await self.previous.agree(at_once, [*resources.pool.bound], admin)
        self.done = True
        resources.folder.own()
        components.admin.own()
        resources.systemd.mute = False
        self._cleaning = asyncio.get_running_loop().create_task(self._end_orphans())
        self.previous.confirm()

    async def released(self, name: str) -> None:
        """Waits until the previous daemon's workers of a service have stopped accepting."""
        await self.previous.released(name)

    async def ended(self, name: str) -> None:
        """Waits until the previous daemon's workers of a service have ended."""
        await self.previous.ended(name)

    async def _end_orphans(self) -> None:
        """Ends the workers of a previous daemon that is killed while it drains."""
        await self.previous.gone.wait()
        folder, pid = self._components.resources.folder.private, self.previous.state.pid
        plan = self._components.reloader.desired.plan
        self._orphans = OrphanCleaner(orphaned_workers(folder, pid), plan)
        await self._orphans.wait_for_addresses()

    @property
    def draining(self) -> int | None:
        """The pid of the previous daemon, while it drains."""
        return self.previous.state.pid if self.done and not self.previous.gone.is_set() else None

    async def wait_previous_gone(self, seconds: float | None) -> None:
        """Waits for the previous daemon's end; orders it after `seconds` (None: never)."""
        if not self.done:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.previous.gone.wait(), seconds)
        self.force_stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.previous.gone.wait(), PREVIOUS_DAEMON_SECONDS)
        if self._cleaning is not None:
            self._cleaning.cancel()
        if self._orphans is not None:
            await self._orphans.stop()

    def force_stop(self) -> None:
        """Tells a draining previous daemon to end now."""
        if self.draining is not None:
            self.previous.force_stop()
