"""Keeps the folders for the metrics of apps from growing."""

from __future__ import annotations

import asyncio
import os
from functools import cached_property
from typing import TYPE_CHECKING

import structlog

from servd.daemon.metrics_folder import listed, service_of
from servd.daemon.runtime_dir import RuntimeDir

if TYPE_CHECKING:
    from servd.daemon.app_metrics import AppMetrics

log = structlog.get_logger()

SECONDS = 30.0
"""How often what the dead have left is folded, where nobody asks for metrics."""


class Sweeper:
    """Folds the files of processes that have ended. Loads prometheus_client when there is one."""

    def __init__(self, folder: RuntimeDir) -> None:
        self.folder = folder
        self._task: asyncio.Task[None] | None = None

    @cached_property
    def app_metrics(self) -> AppMetrics:
        """The metrics of all apps."""
        from servd.daemon.app_metrics import AppMetrics

        return AppMetrics(self.folder.app_metrics, self.folder.folded_app_metrics)

    def start(self) -> None:
        """Begins, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._sweep_on())

    async def stop(self) -> None:
        """Ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(SECONDS)
            await asyncio.to_thread(self.sweep)

    def sweep(self) -> None:
        """Folds what is left of the dead, in the folders that have such a file."""
        for folder in listed(self.folder.app_metrics):
            names = listed(os.path.join(self.folder.app_metrics, folder))
            if any(_is_of_the_dead(name) for name in names):
                try:
                    self.app_metrics.fold(service_of(folder))
                except Exception:  # one service must not keep the others from being looked after
                    log.exception("metrics of an app cannot be kept", service=service_of(folder))


def _is_of_the_dead(name: str) -> bool:
    pid = name.rpartition("_")[2].removesuffix(".db")
    return pid.isdigit() and not os.path.exists(f"/proc/{pid}")
