"""The daemon, as the admin API sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from servd.daemon.gpus.monitor import GpuMonitor
from servd.daemon.gpus.quarantine import GpuQuarantine
from servd.daemon.log.buffer import LogRouter
from servd.daemon.metrics.history import RateHistory
from servd.daemon.reload.reloader import Reloader
from servd.daemon.reload.request import ReloadReport, ReloadRequest
from servd.daemon.upgrade.upgrader import Upgrades
from servd.supervisor.supervisor import Supervisor

if TYPE_CHECKING:
    from servd.daemon.metrics.multiprocess import AppMetrics
    from servd.daemon.metrics.snapshot import Snapshot
    from servd.daemon.status import ServiceStatus, Status


class DaemonView(Protocol):
    """The part of the daemon that the admin API uses."""

    router: LogRouter
    reloader: Reloader
    supervisor: Supervisor
    upgrades: Upgrades
    history: RateHistory
    gpus: GpuMonitor
    quarantine: GpuQuarantine

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
