"""The interfaces between the daemon and its admin API."""

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
    """The part of the daemon that the admin API uses."""

    router: LogRouter
    reloader: Reloader
    supervisor: Supervisor
    upgrades: Upgrades

    @property
    def state(self) -> str:
        """`starting`, `running`, `reloading` or `stopping`."""

    def app_metrics(self) -> AppMetrics:
        """Returns the metrics of apps."""

    def reload(self, request: ReloadRequest) -> asyncio.Future[ReloadReport]:
        """Requests a reload; the future returns its report."""

    def status(self) -> Status:
        """Returns the current state of everything."""

    def services_status(self) -> list[ServiceStatus]:
        """Returns the current state of every service."""

    def snapshot(self) -> Snapshot:
        """Returns the current measurements."""


class Admin(Protocol):
    """The server of the admin API."""

    def open(self, config: AdminConfig, handed: Sequence[HandedSocket]) -> None:
        """Binds its addresses, or takes the `handed` sockets. Raises `StartError`."""

    async def start(self, daemon: DaemonView) -> None:
        """Starts answering for `daemon`."""

    async def change(self, before: AdminConfig, after: AdminConfig) -> SettingsChange:
        """Prepares other addresses. Raises `StartError`."""

    def handed(self) -> list[HandedSocket]:
        """Returns its sockets, for the daemon that replaces this one."""

    def hand_over(self, keys: Collection[str]) -> None:
        """Gives the sockets with these keys to that daemon."""

    def own(self) -> None:
        """Takes full ownership of sockets from the previous daemon."""

    async def stop(self) -> None:
        """Answers the requests in progress, and no more."""
