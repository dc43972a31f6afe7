"""The list of a daemon's workers on disk, with which the next daemon ends those of a killed one."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os

import structlog

from servd.core.events import Event
from servd.core.orphans import OrphanedWorker, read_list, write_list
from servd.core.processes import started_at
from servd.plan.model import ServicePlan
from servd.supervisor.guardian import Guardian

_RETRY_SECONDS = 2.0
"""Pause before a list that could not be written is written again."""

_PAUSES = 4.0
"""Pause after each writing, as a multiple of its time: a list of many workers, whose starts follow
one another, takes a fifth of the loop at most.
"""

log = structlog.get_logger()


class WorkerRegistry:
    """The list of one daemon, in a `folder` that it shares with daemons that are ending. It is
    written shortly after every change; without a folder it is not written.
    """

    def __init__(self, folder: str = "") -> None:
        self._started: set[str] = set()
        self._path = os.path.join(folder, f"workers-{os.getpid()}.json") if folder else ""
        self._guardian = Guardian(self._path)
        self._known: dict[int, OrphanedWorker] = {}
        self._writing: asyncio.TimerHandle | None = None
        self._stale = False
        self._not_before = 0.0

    def add(self, pid: int, plan: ServicePlan, notify_path: str) -> None:
        """A worker was started."""
        self._started.add(plan.name)
        started = started_at(pid)
        if started is not None:
            self._known[pid] = OrphanedWorker(pid, started, plan.stop_seconds, notify_path)
            self._write_soon()
            if plan.app is None:  # an app's worker ends what it has started itself
                self._guardian.start()

    def remove(self, pid: int) -> None:
        """A worker has been reaped."""
        if self._known.pop(pid, None) is not None:
            self._write_soon()

    def take_started(self) -> set[str]:
        """Returns the services of which workers have been started since the last call."""
        started, self._started = self._started, set()
        return started

    def knows(self, pid: int) -> bool:
        """Whether the process is a worker that has not been reaped."""
        return pid in self._known

    def mend(self) -> None:
        """Writes the list again if it was deleted."""
        if self._known and self._path and not os.path.exists(self._path):
            self._write_soon()

    def close(self) -> None:
        """Removes the list: no worker remains."""
        if self._writing is not None:
            self._writing.cancel()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            self._path = ""
        self._guardian.stop()

    def _write_soon(self) -> None:
        if self._path and self._writing is None:
            loop = asyncio.get_running_loop()
            self._writing = loop.call_at(self._not_before, self._write)

    def _write(self) -> None:
        self._writing = None
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            write_list(self._path, self._known.values())
        except OSError as error:  # without it, orphaned workers end by themselves
            if not self._stale:
                log.warning(Event.WORKER_LIST_NOT_WRITTEN, error=error.strerror)
            self._stale = True
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._write_soon)
        else:
            self._stale = False
        self._not_before = loop.time() + _PAUSES * (loop.time() - began)


def orphaned_workers(folder: str, of: int | str = "*") -> list[OrphanedWorker]:
    """The living workers of all other daemons (or of one, by its pid), and those that have ended
    but left something behind; removes their lists.
    """
    found: list[OrphanedWorker] = []
    for path in glob.glob(os.path.join(glob.escape(folder), f"workers-{of}.json")):
        found += read_list(path)
        with contextlib.suppress(OSError):
            os.unlink(path)
    return [worker for worker in found if worker.lives]
