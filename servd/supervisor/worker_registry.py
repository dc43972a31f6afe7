"""The list of a daemon's workers on disk, with which the next daemon ends those of a killed one."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import json
import os
import signal
from dataclasses import dataclass

import structlog

from servd.core.events import Event

_RETRY_SECONDS = 2.0
"""Pause before a list that could not be written is written again."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OrphanedWorker:
    """A process that was a worker. Its start time (clock ticks since boot, proc(5)) tells it from a
    later process with the same pid.
    """

    pid: int
    started: int

    @property
    def lives(self) -> bool:
        """Whether it still runs, and is no zombie."""
        return started_at(self.pid) == self.started

    def kill(self) -> None:
        """Kills it with its group."""
        if self.lives:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


class WorkerRegistry:
    """The list of one daemon, in a `folder` that it shares with daemons that are ending. It is
    written shortly after every change; without a folder it is not written.
    """

    def __init__(self, folder: str = "") -> None:
        self._path = os.path.join(folder, f"workers-{os.getpid()}.json") if folder else ""
        self._known: dict[int, int] = {}
        self._writing: asyncio.Handle | None = None
        self._stale = False

    def add(self, pid: int) -> None:
        """A worker was started."""
        started = started_at(pid)
        if started is not None:
            self._known[pid] = started
            self._write_soon()

    def remove(self, pid: int) -> None:
        """A worker has been reaped."""
        if self._known.pop(pid, None) is not None:
            self._write_soon()

    def close(self) -> None:
        """Removes the list: no worker remains."""
        if self._writing is not None:
            self._writing.cancel()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            self._path = ""

    def _write_soon(self) -> None:
        if self._path and self._writing is None:
            self._writing = asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._writing = None
        temporary = f"{self._path}.new"
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(list(self._known.items()), file)
            os.replace(temporary, self._path)
        except OSError as error:  # without it, orphaned workers end by themselves
            if not self._stale:
                log.warning(Event.WORKER_LIST_NOT_WRITTEN, error=error.strerror)
            self._stale = True
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._write_soon)
        else:
            self._stale = False


def orphaned_workers(folder: str, of: int | str = "*") -> list[OrphanedWorker]:
    """The living workers of all other daemons (or of one, by its pid); removes their lists."""
    found: list[OrphanedWorker] = []
    for path in glob.glob(os.path.join(glob.escape(folder), f"workers-{of}.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            with open(path, encoding="utf-8") as file:
                found += [
                    OrphanedWorker(int(pid), int(started)) for pid, started in json.load(file)
                ]
            os.unlink(path)
    return [worker for worker in found if worker.lives]


def started_at(pid: int) -> int | None:
    """The start time of a process; None for one that does not exist or has ended."""
    fields = _stat(pid)
    return None if not fields or fields[0] in ("Z", "X") else int(fields[19])


def is_dead(pid: int) -> bool:
    """Whether a process has ended and waits to be reaped."""
    return _stat(pid)[:1] == ["Z"]


def _stat(pid: int) -> list[str]:
    """The fields of proc(5)'s stat from the third (the state) on; [] without such a process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []
