"""The files that services name with `log.file`, each with a writer of its own."""

from __future__ import annotations

import structlog

from servd.config.model import DaemonLog
from servd.config.service import ServiceLog
from servd.core.errors import StartError
from servd.core.events import Event
from servd.daemon.log.event import LogEvent
from servd.daemon.log.sink import LogSink, open_log
from servd.plan.host import Account
from servd.supervisor.io.print_file import PrintFile

log = structlog.get_logger()


class _File:
    """One file. A slow disk loses lines of it, and holds nothing up."""

    def __init__(self, options: DaemonLog, account: Account | None) -> None:
        """Opens it. Raises `StartError`."""
        self.users = 0
        self.account = account
        self.sink = LogSink(options, open_log(options, account))

    def put(self, line: bytes) -> None:
        """Queues a line."""
        self.sink.put(LogEvent.by_worker("", line))

    def change(self, options: DaemonLog) -> None:
        """Writes as `options` say from now on. Raises `StartError`."""
        if options != self.sink.options:
            self.sink.adopt(options, open_log(options, self.account))

    def reopen(self) -> None:
        """Opens it again. Raises `StartError`."""
        self.sink.adopt(self.sink.options, open_log(self.sink.options, self.account))


class OpenPrintFiles:
    """The files in use, by path: two services may write to one."""

    def __init__(self) -> None:
        self._open: dict[str, _File] = {}
        self._ending: list[LogSink] = []

    def acquire(self, options: ServiceLog, account: Account | None) -> PrintFile | None:
        """See `PrintFiles`."""
        if not options.file:
            return None
        wanted = DaemonLog(
            format="json", file=options.file, max_size=options.max_size, keep=options.keep
        )
        try:
            file = self._open.get(options.file)
            if file is None:
                file = self._open[options.file] = _File(wanted, account)
            file.change(wanted)
        except StartError as error:
            log.error(Event.LOG_NOT_WRITTEN, error=str(error), file=options.file)
            return None
        file.users += 1
        return file

    def release(self, file: PrintFile | None) -> None:
        """See `PrintFiles`. What waits is still written."""
        if not isinstance(file, _File):
            return
        file.users -= 1
        if not file.users:
            self._open = {path: known for path, known in self._open.items() if known is not file}
            self._end(file.sink)

    def reopen(self) -> list[str]:
        """Opens the files again that were moved away; returns why some could not be."""
        errors: list[str] = []
        for file in self._open.values():
            try:
                file.reopen()
            except StartError as error:
                errors.append(str(error))
        return errors

    def close(self) -> None:
        """Writes what waits, for a bounded time, and closes all."""
        for file in self._open.values():
            self._end(file.sink)
        self._open.clear()
        for sink in self._ending:
            sink.close()
        self._ending.clear()

    def _end(self, sink: LogSink) -> None:
        sink.finish()
        self._ending = [*(known for known in self._ending if not known.has_ended), sink]
