"""Stops workers whose daemon was killed, from its list on disk."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from servd.core import processes

_DETAILS = ("started", "seconds", "notify_path")


@dataclass(slots=True)
class OrphanedWorker:
    """A process that was a worker, with the processes that it started. Its start time (clock ticks
    since boot) distinguishes it from a later process with the same pid, its notify socket finds
    processes that left its group. It has `seconds` to exit on its own.
    """

    pid: int
    started: int
    seconds: float
    notify_path: str
    _asked: set[int] = field(default_factory=set)

    @property
    def leads(self) -> bool:
        """Whether the worker itself still runs."""
        return processes.started_at(self.pid) == self.started

    @property
    def rest(self) -> list[int]:
        """The running processes that it left behind. Its pid is reused once its group is gone."""
        is_another = processes.started_at(self.pid) not in (None, self.started)
        return [
            pid
            for pid in processes.all_pids()
            if pid != self.pid
            and processes.was_started_by(pid, self.pid, self.notify_path, by_number=not is_another)
        ]

    @property
    def lives(self) -> bool:
        """Whether the worker or a process that it left behind still runs."""
        return self.leads or bool(self.rest)

    def ask_rest(self) -> bool:
        """Once it has exited, sends SIGTERM to what it left behind. Whether anything still runs."""
        if self.leads:
            return True
        rest = self.rest
        for pid in rest:
            if pid not in self._asked:
                _signal(pid, signal.SIGTERM)
                self._asked.add(pid)
        return bool(rest)

    def kill(self) -> None:
        """Kills it and what it left behind."""
        rest = self.rest
        for pid in [self.pid, *rest] if self.leads else rest:
            _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def write_list(path: str, workers: Iterable[OrphanedWorker]) -> None:
    """Writes a list of workers. Raises OSError."""
    temporary = f"{path}.new"
    rows = [(w.pid, {name: getattr(w, name) for name in _DETAILS}) for w in workers]
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(rows))  # one call: `json.dump` is ten times slower
    os.replace(temporary, path)


def read_list(path: str) -> list[OrphanedWorker]:
    """Reads a list of workers; empty if the file is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)
        return [
            OrphanedWorker(
                int(pid),
                int(details["started"]),
                float(details["seconds"]),
                str(details["notify_path"]),
            )
            for pid, details in rows
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def end_all(
    workers: Iterable[OrphanedWorker], now: Callable[[], float], pause: Callable[[], None]
) -> None:
    """Lets each worker drain for its time, then kills what is left."""
    began = now()
    left = list(workers)
    while left:
        left = [worker for worker in left if worker.ask_rest()]
        for worker in left:
            if now() - began >= worker.seconds:
                worker.kill()
        if left:
            pause()
