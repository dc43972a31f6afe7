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
    """The part of the daemon that the admin API uses."""

    @property
    def state(self) -> str:
        """`starting`, `running`, `reloading` or `stopping`."""

    @property
    def router(self) -> LogRouter:
        """The log: its lines, its events, and the id of this boot."""

    @property
    def reloader(self) -> Reloader:
        """The configuration in force, its revision, and the plan of a reload."""

    @property
    def supervisor(self) -> Supervisor:
        """The services."""

    @property
    def upgrades(self) -> Upgrades:
        """Takes requests for a new daemon."""

    def app_metrics(self) -> AppMetrics:
        """Returns the metrics that apps count themselves."""

    def reload(self, request: ReloadRequest) -> asyncio.Future[ReloadReport]:
        """Requests a reload; the future returns its report."""

    def status(self) -> Status:
        """Returns the current state of everything."""

    def services_status(self) -> list[ServiceStatus]:
        """Returns the current state of every service."""

    def snapshot(self) -> Snapshot:
        """Returns the current measurements."""


class Admin(Protocol):
    """The part that answers whoever asks the daemon for something."""

    def open(self, config: AdminConfig, handed: Sequence[HandedSocket]) -> None:
        """Takes its address: what was handed over, or a new one. Raises `StartError`."""

    async def start(self, daemon: DaemonView) -> None:
        """Starts answering for `daemon`."""

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
