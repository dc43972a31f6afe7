"""What a worker leaves behind: processes that it has started, and that have not ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Set

from servd.core import processes
from servd.host.listening import serving


class Remains:
    """The living processes that a worker which has ended had started: in its group or not, orphaned
    long before or just now. The daemon is their parent by then (`adopt_orphans`). A worker's
    NOTIFY_SOCKET, which no other worker has, tells whose those are that have left its group.
    `gone` is called when one of them has ended.
    """

    def __init__(self, leader: int, notify_path: str, gone: Callable[[], None]) -> None:
        self._leader = leader
        self._notify_path = notify_path
        self._gone = gone
        self._descriptors: dict[int, int] = {}
        self._others: Set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    def look(self, known: Callable[[int], bool]) -> dict[int, str]:
        """Returns the names of those that live now, by pid. `known` tells a worker's own pid."""
        self._forget_ended()
        orphans = [pid for pid in processes.all_children_of(os.getpid()) if not known(pid)]
        ours = [
            pid for pid in orphans if processes.was_started_by(pid, self._leader, self._notify_path)
        ]
        for pid in processes.descendants_of(ours):
            if pid not in self._descriptors:
                self._hold(pid)
        return {pid: processes.name_of(pid) for pid in self._descriptors}

    def _hold(self, pid: int) -> None:
        """Opens a descriptor of the process: its pid may be another's once it is gone."""
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            if processes.started_at(pid) is None:
                os.close(descriptor)
                return
            self._descriptors[pid] = descriptor
            asyncio.get_running_loop().add_reader(descriptor, self._has_ended, pid)

    def _has_ended(self, pid: int) -> None:
        self._release(pid)
        if self._others and not self._descriptors.keys() - self._others:
            self._ask_others()
        self._gone()

    def _release(self, pid: int) -> None:
        descriptor = self._descriptors.pop(pid)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        with contextlib.suppress(ChildProcessError):  # its own parent reaps what is not ours
            os.waitpid(pid, os.WNOHANG)

    def _forget_ended(self) -> None:
        for pid in [pid for pid in self._descriptors if processes.started_at(pid) is None]:
            self._release(pid)

    def end(self, seconds: float) -> None:
        """Sends SIGTERM (SIGKILL if they have no time), to those first that serve clients, if some
        do: they may need the others for their answers. The others get it once those have ended, or
        when half of `seconds` is over.
        """
        if not seconds:
            self.signal(signal.SIGKILL)
            return
        first = serving(self._descriptors)
        self._others = self._descriptors.keys() - first if first else set()
        self._ask(self._descriptors.keys() - self._others)
        if self._others:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds / 2, self._ask_others)

    def _ask_others(self) -> None:
        others, self._others = self._others, set()
        self._ask(others)

    def _ask(self, pids: Set[int]) -> None:
        for pid in pids & self._descriptors.keys():
            processes.send_signal(self._descriptors[pid], signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Sends a signal to each of them."""
        for descriptor in self._descriptors.values():
            processes.send_signal(descriptor, number)

    def close(self) -> None:
        """Stops looking after them."""
        if self._timer is not None:
            self._timer.cancel()
        for pid in list(self._descriptors):
            self._release(pid)
