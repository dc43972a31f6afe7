"""What the daemon needs of the part that answers for it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol

from servd.config.model import AdminConfig
from servd.core.handed_socket import HandedSocket
from servd.daemon.reload.settings import SettingsChange

if TYPE_CHECKING:
    from servd.daemon.log.buffer import LogRouter
    from servd.daemon.metrics.multiprocess import AppMetrics
    from servd.daemon.metrics.snapshot import Snapshot
    from servd.daemon.reload.reloader import Reloader
    from servd.daemon.reload.request import ReloadReport, ReloadRequest
    from servd.daemon.status import ServiceStatus, Status
    from servd.daemon.upgrade.upgrader import Upgrades
    from servd.supervisor.supervisor import Supervisor


class DaemonView(Protocol):
    """What the admin API reads of the daemon, and asks it to do."""

    @property
    def supervisor(self) -> Supervisor: ...
    @property
    def reloader(self) -> Reloader: ...
    @property
    def upgrades(self) -> Upgrades: ...
    @property
    def router(self) -> LogRouter: ...
    @property
    def state(self) -> str: ...

    def app_metrics(self) -> AppMetrics:
        """The metrics that apps count themselves."""

    def status(self) -> Status:
        """What runs, as it is now."""

    def services_status(self) -> list[ServiceStatus]:
        """The same of the services alone."""

    def snapshot(self) -> Snapshot:
        """What there is to be measured, as it is now."""

    def reload(self, request: ReloadRequest) -> asyncio.Future[ReloadReport]:
        """Asks for a reload; the future is its report."""


class Admin(Protocol):
    """The part that answers whoever asks the daemon for something."""

    def open(self, config: AdminConfig, handed: Sequence[HandedSocket]) -> None:
        """Takes its address: what was handed over, or a new one. Raises `StartError`."""

    async def start(self, daemon: DaemonView) -> None:
        """Answers from now on, about `daemon`."""

    async def change(self, before: AdminConfig, after: AdminConfig) -> SettingsChange:
        """Prepares another address. Raises `StartError`."""

    def handed(self) -> list[HandedSocket]:
        """The sockets, for a daemon that takes the place of this one."""

    def hand_over(self, keys: Collection[str]) -> None:
        """That daemon has those with these keys."""

    def own(self) -> None:
        """The daemon that the sockets are of has left them to this one."""

    async def stop(self) -> None:
        """Answers what has been asked, and nothing more."""
