"""Reloads the daemon's own settings: log, admin API, hooks, and the limit of parallel starts."""

from __future__ import annotations

from servd.config.model import Config
from servd.core.errors import StartError
from servd.core.quick_dataclass import dataclass
from servd.daemon.admin_protocol import Admin, api_address
from servd.daemon.hooks import Hooks
from servd.daemon.log.buffer import LogRouter
from servd.daemon.log.sink import configure, open_log
from servd.daemon.reload.settings import SettingsChange
from servd.daemon.runtime_dir import RuntimeDir
from servd.supervisor.circus.start_limiter import StartLimiter


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """The components with settings; `daemon.start_concurrency = 0` counts `usable_cpus`."""

    router: LogRouter
    folder: RuntimeDir
    admin: Admin
    hooks: Hooks
    limiter: StartLimiter
    usable_cpus: int

    async def prepare(self, before: Config, after: Config) -> SettingsChange:
        """Prepares what a reload changes of the daemon itself. Raises `StartError`."""
        change = SettingsChange()
        if before.daemon.log != after.daemon.log:
            stream = open_log(after.daemon.log)

            async def adopt() -> None:
                self.router.sink.adopt(after.daemon.log, stream)
                configure(self.router.by_daemon, after.daemon.log.level)

            async def discard() -> None:
                stream.close()

            change.commits.append(adopt)
            change.undoes.append(discard)
        if before.admin != after.admin:
            try:
                admin = await self.admin.change(before.admin, after.admin)
            except StartError:
                await change.undo()
                raise
            change.commits += admin.commits
            change.undoes += admin.undoes

        async def apply() -> None:
            self.limiter.change(start_limit(after, self.usable_cpus))
            self.hooks.hooks = after.hooks
            self.folder.tell_admin(api_address(after.admin, self.folder.path))

        change.commits.append(apply)
        return change


def start_limit(config: Config, usable_cpus: int) -> int:
    """Returns how many workers may start in parallel."""
    return config.daemon.start_concurrency or 2 * usable_cpus
