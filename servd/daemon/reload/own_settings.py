"""What a reload changes of the daemon itself: its log, its admin API, its hooks, its pace."""

from __future__ import annotations

from collections.abc import Callable

from servd.config.model import Config
from servd.core.errors import StartError
from servd.daemon.admin_protocol import Admin
from servd.daemon.hooks import Hooks
from servd.daemon.log.buffer import LogRouter
from servd.daemon.log.sink import configure, open_log
from servd.daemon.reload.settings import SettingsChange
from servd.supervisor.circus.watcher import StartLimiter


class OwnSettings:
    """The parts that have settings; `places` says how many workers may start at a time."""

    def __init__(
        self,
        record: LogRouter,
        admin: Admin,
        hooks: Hooks,
        gate: StartLimiter,
        places: Callable[[Config], int],
    ) -> None:
        self.record = record
        self.admin = admin
        self.hooks = hooks
        self.gate = gate
        self.places = places

    async def prepare(self, before: Config, after: Config) -> SettingsChange:
        """Prepares what a reload changes of the daemon itself. Raises `StartError`."""
        change = SettingsChange()
        if before.daemon.log != after.daemon.log:
            stream = open_log(after.daemon.log)

            async def adopt() -> None:
                self.record.sink.adopt(after.daemon.log, stream)
                configure(self.record.by_daemon, after.daemon.log.level)

            async def forget() -> None:
                stream.close()

            change.commits.append(adopt)
            change.undoes.append(forget)
        if before.admin != after.admin:
            try:
                admin = await self.admin.change(before.admin, after.admin)
            except StartError:
                await change.undo()
                raise
            change.commits += admin.commits
            change.undoes += admin.undoes

        async def take_over() -> None:
            self.gate.places = self.places(after)
            self.gate.wake()
            self.hooks.hooks = after.hooks

        change.commits.append(take_over)
        return change
