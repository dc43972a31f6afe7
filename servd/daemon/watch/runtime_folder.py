"""Makes again what vanishes of the runtime folder and of unix sockets while the daemon runs: a tmp
cleaner, a logout or a person removes it.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable

import structlog

from servd.core.errors import StartError
from servd.core.events import Event
from servd.daemon.admin_protocol import Admin
from servd.daemon.periodic import Periodic
from servd.daemon.reload.request import ReloadRequest
from servd.daemon.runtime_dir import RuntimeDir
from servd.supervisor.app_folders import make_app_folders
from servd.supervisor.service import ManagedService
from servd.supervisor.supervisor import Supervisor

_LOOK_SECONDS = 1.0
_SURE_SECONDS = 0.5
"""Age of a change of a folder after which another one has another time."""

_AGAIN_SECONDS = 30.0
_LONGEST_SECONDS = 600.0
"""Time between two attempts to give a service its socket back: the first, and the longest."""

_REPORT_SECONDS = 60.0
"""Interval in which a lasting failure is reported again."""

log = structlog.get_logger()


class RuntimeFolderWatch:
    """Looks every second. Folders, the record of the daemon, the admin API's sockets and those for
    notifications are made again at once. The workers hold the sockets of services, and a file that
    is gone cannot lead to the old one: the service is rolled onto a new one.
    """

    def __init__(
        self,
        folder: RuntimeDir,
        supervisor: Supervisor,
        admin: Admin,
        ask: Callable[[ReloadRequest], object],
    ) -> None:
        self.looks = Periodic(_LOOK_SECONDS, self.look, later=True)
        self._folder = folder
        self._supervisor = supervisor
        self._admin = admin
        self._ask = ask
        self._rolled: dict[str, tuple[float, float]] = {}
        self._looked_at = 0.0
        self._said: tuple[str, float] = ("", -math.inf)

    def look(self) -> None:
        """Mends what is missing, and says so."""
        if not self._folder.is_owned:
            return  # the folder is another daemon's by now
        try:
            missing = self._folder.mend()
            if missing:
                self._mend_what_is_inside()
            missing += self._mend_notify_sockets()
            missing += self._admin.mend()
        except (OSError, StartError) as error:
            self._complain(str(error))
            missing = []
        if missing:
            log.warning(Event.RUNTIME_FOLDER_MENDED, missing=missing)
        self._mend_services()

    def _complain(self, error: str) -> None:
        text, said = self._said
        if text != error or time.monotonic() - said >= _REPORT_SECONDS:
            self._said = error, time.monotonic()
            action = f"retrying every {_LOOK_SECONDS:g} s"
            log.error(Event.RUNTIME_FOLDER_MISSING, error=error, next_action=action)

    def _mend_what_is_inside(self) -> None:
        self._supervisor.context.workers.registry.mend()
        for service in self._services:
            for generation in service.generations:
                make_app_folders(generation.plan)

    def _mend_notify_sockets(self) -> list[str]:
        """Looks for each socket, unless nothing has changed in their folder."""
        try:
            changed = os.stat(self._folder.notify).st_mtime
        except OSError:
            changed = 0.0
        if changed and changed == self._looked_at:
            return []
        # a later change can have the same time as one that has only just been made
        self._looked_at = changed if abs(time.time() - changed) > _SURE_SECONDS else 0.0
        made: list[str] = []
        for service in self._services:
            for process in service.processes:
                with contextlib.suppress(OSError):  # tried again
                    made += process.mend_notify()
        return made

    def _mend_services(self) -> None:
        """Rolls the services that clients can no longer reach."""
        now, lost = time.monotonic(), {item.key: item for item in self._supervisor.lost_sockets}
        self._rolled = {key: at for key, at in self._rolled.items() if key in lost}
        due = [item for key, item in lost.items() if now >= self._rolled.get(key, (0.0, 0.0))[0]]
        for item in due:
            pause = min(
                2 * self._rolled.get(item.key, (0.0, _AGAIN_SECONDS / 2))[1], _LONGEST_SECONDS
            )
            self._rolled[item.key] = now + pause, pause
        names = {
            name
            for name, service in self._supervisor.services.items()
            if service.current is not None and service.current.uses(due)
        }
        paths = sorted(item.path for item in due)
        if names:
            log.warning(Event.SOCKETS_REMOVED, paths=paths, services=sorted(names))
            why = f"{', '.join(paths)} deleted"
            self._ask(ReloadRequest(why, read=False, roll=frozenset(names)))

    @property
    def _services(self) -> list[ManagedService]:
        return [*self._supervisor.services.values(), *self._supervisor.leaving]
