"""The part of the daemon that the admin API uses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from servd.daemon.log.buffer import LogRouter
from servd.daemon.metrics.snapshot import Snapshot
from servd.daemon.reload.reloader import Reloader
from servd.daemon.reload.request import ReloadReport, ReloadRequest
from servd.daemon.status import ServiceStatus, Status
from servd.daemon.upgrade.upgrader import Upgrades
from servd.supervisor.supervisor import Supervisor

if TYPE_CHECKING:
    from servd.daemon.metrics.multiprocess import AppMetrics


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
