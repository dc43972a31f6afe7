"""The files that services name with `log.file`, each with its own writer."""

from __future__ import annotations

import math
import time

import structlog

from servd.config.model import DaemonLog
from servd.config.service import ServiceLog
from servd.core.errors import StartError
from servd.core.events import Event
from servd.daemon.log.event import LogEvent
from servd.daemon.log.sink import LogSink, open_log
from servd.plan.host import Account
from servd.supervisor.io.print_file import PrintFile

_AGAIN_SECONDS = 10.0
"""Shortest time between two attempts to open a file that cannot be opened."""

log = structlog.get_logger()


class _File:
    """One file. A slow disk loses lines of it, and holds nothing up; one that cannot be opened is
    tried again.
    """

    def __init__(self, options: DaemonLog, account: Account | None) -> None:
        self.users = 0
        self.options = options
        self.account = account
        self.sink: LogSink | None = None
        self._tried = -math.inf

    def put(self, line: bytes, count: int = 1) -> None:
        """See `PrintFile`."""
        if self.sink is None and time.monotonic() - self._tried >= _AGAIN_SECONDS:
            self.open()
        if self.sink is not None:
            self.sink.put(LogEvent.by_worker("", line, count))

    def open(self) -> str:
        """Opens it, or opens it again; returns why that is not possible, which is logged."""
        self._tried = time.monotonic()
        try:
            stream = open_log(self.options, self.account)
            if self.sink is None:
                self.sink = LogSink(self.options, stream)
            else:
                self.sink.adopt(self.options, stream)
        except (StartError, RuntimeError) as error:  # no room for a thread
            log.error(Event.LOG_NOT_WRITTEN, error=str(error), file=self.options.file)
            return str(error)
        return ""


class OpenPrintFiles:
    """The files in use, by path and by whose rights they are opened with: two services may write to
    one.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _File] = {}
        self._ending: list[LogSink] = []

    def acquire(self, options: ServiceLog, account: Account | None) -> PrintFile | None:
        """See `PrintFiles`."""
        if not options.file:
            return None
        wanted = DaemonLog(
            format="json", file=options.file, max_size=options.max_size, keep=options.keep
        )
        key = options.file, account.name if account is not None else ""
        file = self._open.setdefault(key, _File(wanted, account))
        if file.sink is None or file.options != wanted:
            file.options = wanted
            file.open()
        file.users += 1
        return file

    def release(self, file: PrintFile | None) -> None:
        """See `PrintFiles`. What waits is still written."""
        if not isinstance(file, _File):
            return
        file.users -= 1
        if not file.users:
            self._open = {key: known for key, known in self._open.items() if known is not file}
            self._end(file)

    def reopen(self) -> list[str]:
        """Opens the files again that were moved away; returns why some could not be."""
        return [error for file in self._open.values() if (error := file.open())]

    def close(self) -> None:
        """Writes what waits, for a bounded time, and closes all."""
        for file in self._open.values():
            self._end(file)
        self._open.clear()
        for sink in self._ending:
            sink.close()
        self._ending.clear()

    def _end(self, file: _File) -> None:
        if file.sink is not None:
            file.sink.finish()
            alive = [sink for sink in self._ending if not sink.has_ended]
            self._ending = [*alive, file.sink]
