"""What a reload changes of the daemon itself: its log, its admin API, its hooks, its pace."""

from __future__ import annotations

from servd.config.model import Config
from servd.core.errors import StartError
from servd.daemon.admin_protocol import Admin
from servd.daemon.hooks import Hooks
from servd.daemon.log.buffer import LogRouter
from servd.daemon.log.sink import configure, open_log
from servd.daemon.reload.settings import SettingsChange
from servd.supervisor.circus.start_limiter import StartLimiter


class OwnSettings:
    """The parts that have settings. `usable_cpus` is what `daemon.start_concurrency = 0` counts."""

    def __init__(
        self,
        record: LogRouter,
        admin: Admin,
        hooks: Hooks,
        limiter: StartLimiter,
        usable_cpus: int,
    ) -> None:
        self.record = record
        self.admin = admin
        self.hooks = hooks
        self.limiter = limiter
        self.usable_cpus = usable_cpus

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
            self.limiter.change(start_limit(after, self.usable_cpus))
            self.hooks.hooks = after.hooks

        change.commits.append(take_over)
        return change


def start_limit(config: Config, usable_cpus: int) -> int:
    """How many workers may be starting at once."""
    return config.daemon.start_concurrency or 2 * usable_cpus
