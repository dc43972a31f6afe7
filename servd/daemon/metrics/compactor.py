"""Keeps the folders for the metrics of apps from growing."""

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

SECONDS = 30.0
"""How often what the dead have left is folded, where nobody asks for metrics."""


class MetricsCompactor:
    """Folds the files of processes that have ended. Loads prometheus_client when there is one."""

    def __init__(self, folder: RuntimeDir) -> None:
        self.folder = folder
        self.sweeps = Periodic(SECONDS, self._sweep, later=True)

    @cached_property
    def app_metrics(self) -> AppMetrics:
        """The metrics of all apps."""
        from servd.daemon.metrics.multiprocess import AppMetrics

        return AppMetrics(self.folder.app_metrics, self.folder.folded_app_metrics)

    async def _sweep(self) -> None:
        await asyncio.to_thread(self.sweep)

    def sweep(self) -> None:
        """Folds what is left of the dead, in the folders that have such a file."""
        root = self.folder.app_metrics
        for service in services(root):
            if all(lives(pid) for _, _, pid in files(root, service)):
                continue
            try:
                self.app_metrics.fold(service)
            except OSError as error:  # the disk is full: it is kept, and tried again
                why = error.strerror or str(error)
                log.warning(Event.APP_METRICS_NOT_KEPT, service=service, error=why)
            except Exception:  # one service must not keep the others from being looked after
                log.exception(Event.APP_METRICS_NOT_KEPT, service=service)
