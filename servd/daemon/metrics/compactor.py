"""Keeps the folders of apps' metrics from growing."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING

import structlog

from servd.core.events import Event
from servd.daemon.metrics.folder import files, lives, services
from servd.daemon.periodic import Periodic
from servd.daemon.runtime_dir import RuntimeDir

if TYPE_CHECKING:
    from servd.daemon.metrics.multiprocess import AppMetrics

log = structlog.get_logger()

_COMPACT_SECONDS = 30.0
"""How often files of ended processes are folded when nothing asks for metrics."""


class MetricsCompactor:
    """Folds files of processes that have ended. Loads prometheus_client once there is one."""

    def __init__(self, folder: RuntimeDir) -> None:
        self.folder = folder
        self.sweeps = Periodic(_COMPACT_SECONDS, self._sweep, later=True)

    @cached_property
    def app_metrics(self) -> AppMetrics:
        """The metrics of all apps."""
        from servd.daemon.metrics.multiprocess import AppMetrics

        return AppMetrics(self.folder.app_metrics, self.folder.folded_app_metrics)

    async def _sweep(self) -> None:
        await asyncio.to_thread(self.sweep)

    def sweep(self) -> None:
        """Folds the files of ended processes, in the folders that have any."""
        root = self.folder.app_metrics
        for service in services(root):
            if all(lives(pid) for _, _, pid in files(root, service)):
                continue
            try:
                self.app_metrics.fold(service)
            except OSError as error:  # the disk is full: the file is kept for another try
                reason = error.strerror or str(error)
                log.warning(Event.APP_METRICS_NOT_KEPT, service=service, error=reason)
            except Exception:  # one service must not keep the others from being folded
                log.exception(Event.APP_METRICS_NOT_KEPT, service=service)
