"""The log of the daemon and of everything that it runs.

structlog renders the daemon's events; lines of workers arrive finished. Both end in one sink whose
thread writes: a slow terminal or disk drops lines (counted) and never blocks the loop.
"""

from __future__ import annotations

import collections
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import structlog

from servd.config.model import DaemonLog
from servd.core.errors import StartError
from servd.core.events import Event
from servd.daemon.log import journald
from servd.daemon.log.console import console_renderer
from servd.daemon.log.event import LogEvent, TakeEvent
from servd.daemon.log.file import LogFile
from servd.daemon.log.stream import LogStream, RawStream, whole
from servd.plan.host import Account
from servd.wire.graces import LOG_SECONDS

_QUEUED_LINES = 20_000
_QUEUED_BYTES = 64 * 2**20
"""Most lines, and bytes of them, that wait to be written; more are dropped."""

_REPORT_SECONDS = 10.0
"""Shortest time between two reports of lost lines."""

_LEVELS = ("debug", "info", "warning", "error", "critical")

log = structlog.get_logger()


def now() -> str:
    """Returns the time as it stands in events: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def open_log(options: DaemonLog, account: Account | None = None) -> RawStream:
    """Opens the log file (that of a service of the user `account`), or stderr. Raises
    `StartError`.
    """
    if not options.file:
        return open(os.dup(2), "wb", buffering=0)
    try:
        return LogFile(options.file, max_size=options.max_size, keep=options.keep, account=account)
    except OSError as error:
        raise StartError(f"cannot write the log {options.file}: {error.strerror}") from None


class LogSink:
    """Takes events and writes them, as JSON or for people."""

    def __init__(self, options: DaemonLog, stream: RawStream | None = None) -> None:
        self.options = options
        self.dropped = 0
        self._stream = LogStream(stream or open_log(options))
        self._console = self._renderer()
        self._journal = self._journal_client() if stream is None else None
        self._retired: list[LogStream] = []
        self._waiting: collections.deque[LogEvent] = collections.deque()
        self._lines = self._size = 0
        self._lost, self._reason = 0, ""
        self._report_at = self._trouble_at = 0.0
        self._works = True
        self._end = math.inf
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="servd-log", daemon=True)
        self._thread.start()

    def _renderer(self) -> Callable[[LogEvent], bytes] | None:
        """For people on a terminal; None if events are written as JSON."""
        terminal = self._stream.raw.isatty()
        form = self.options.format
        if form == "console" or (form == "auto" and not self.options.file and terminal):
            plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
            return console_renderer(colours=terminal and not plain)
        return None

    def _journal_client(self) -> journald.JournaldClient | None:
        """Set if stderr goes to systemd's journal and no format is configured."""
        if self.options.file or self.options.format != "auto" or not journald.is_stderr(os.environ):
            return None
        try:
            return journald.JournaldClient()
        except OSError:
            return None

    def say(self, text: str) -> None:
        """Writes a text that is no event, where a person reads the log on a terminal."""
        if self._console is not None and self._stream.raw.isatty():
            self.put(LogEvent.by_worker("", text.encode(), text.count("\n") + 1))

    def put(self, line: LogEvent) -> None:
        """Queues one event, or lines that go together."""
        size, count = len(line.json), line.count
        with self._wake:
            full = self._lines >= _QUEUED_LINES or self._size + size > _QUEUED_BYTES
            if full and threading.current_thread() is not self._thread:  # its own reports fit
                self._drop(count, "writing was too slow")
                return
            self._waiting.append(line)
            self._lines += count
            self._size += size
            self._wake.notify()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the loop takes them
        while True:
            with self._wake:
                while not self._has_work:
                    self._wake.wait(self._until_report)
                retired, self._retired = self._retired, []
                lines = list(self._waiting)
                self._waiting.clear()
                self._lines = self._size = 0
                stream, console, journal = self._stream, self._console, self._journal
            for old in retired:
                old.close()
            if journal is not None:
                for line in lines:
                    for one in line.each():
                        journal.put(one)
            elif lines:
                try:
                    self._write(stream, lines, console)
                except Exception as error:  # no line may end the log
                    self._drop(sum(line.count for line in lines), f"internal error: {error!r}")
            if self._is_report_due:
                self._report_lost()
            elif not lines and self._closing:
                self._stream.close()
                return

    @property
    def _has_work(self) -> bool:
        return bool(self._waiting or self._closing or self._retired or self._is_report_due)

    def _write(
        self, stream: LogStream, lines: list[LogEvent], console: Callable[[LogEvent], bytes] | None
    ) -> None:
        """Writes lines, and counts lost ones: a failing log harms no service. What `stream` has not
        taken when another replaces it is queued for that one.
        """
        if console is None:
            shown = [line.json for line in lines]
        else:
            lines = [one for line in lines for one in line.each()]
            shown = [console(line) for line in lines]
        left, error = stream.write(
            shown, lambda: stream is self._stream and time.monotonic() < self._end
        )
        self._works = not left
        if self._works:
            return
        if console is None:
            lines = [one for line in lines for one in line.each()]
            shown = [line.json for line in lines]
        done = whole(shown, left)
        with self._wake:
            if stream is not self._stream:
                self._waiting.extendleft(reversed(lines[done:]))
                self._lines += len(lines) - done
                self._size += sum(len(line.json) for line in lines[done:])
                return
            self._drop(len(lines) - done, error or "the reader stopped reading")
        if error and time.monotonic() >= self._trouble_at:
            self._trouble_at = time.monotonic() + 6 * _REPORT_SECONDS
            log.error(Event.LOG_NOT_WRITTEN, error=error, file=self.options.file or "stderr")

    def _drop(self, lines: int, reason: str) -> None:
        self.dropped += lines
        self._lost += lines
        self._reason = reason

    @property
    def _until_report(self) -> float | None:
        """Seconds until lost lines are reported; None if there are none, or writing still fails."""
        if not self._lost or not self._works or self._closing:
            return None
        return max(0.0, self._report_at - time.monotonic())

    @property
    def _is_report_due(self) -> bool:
        return self._until_report == 0.0

    def _report_lost(self) -> None:
        with self._wake:
            lines, self._lost = self._lost, 0
            self._report_at = time.monotonic() + _REPORT_SECONDS
        file = {"file": self.options.file} if self.options.file else {}
        log.warning(
            Event.LOG_LINES_LOST, lines=lines, reason=self._reason, total=self.dropped, **file
        )

    def adopt(self, options: DaemonLog, stream: RawStream) -> None:
        """Writes to `stream` from now on, as `options` say; closes the old one."""
        with self._wake:
            old, self._stream, self.options = self._stream, LogStream(stream), options
            self._console = self._renderer()
            self._journal = self._journal_client()
            self._retired.append(old)  # the thread may be writing to it
            self._wake.notify()

    def reopen(self) -> None:
        """Opens a file again that was moved away. Raises `StartError`, and keeps the old one."""
        if self.options.file:
            self.adopt(self.options, open_log(self.options))

    def finish(self) -> None:
        """Has the thread write what waits, for at most `LOG_SECONDS`, and end."""
        with self._wake:
            if not self._closing:
                self._closing = True
                self._end = time.monotonic() + LOG_SECONDS
                self._wake.notify()

    @property
    def has_ended(self) -> bool:
        """Whether the thread has ended."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Finishes, and waits for it."""
        self.finish()
        self._thread.join(LOG_SECONDS + 0.5)


class _ToStructlog(logging.Handler):
    """Turns log records of libraries (asyncio, tornado) into events."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )


def configure(take: TakeEvent, level: str) -> None:
    """Hands all events of this process to `take`: those of `level` or above are marked for the log;
    those of "info" and above always arrive, since hooks and followers want them. For process entry
    points only.
    """
    least = logging.getLevelName(level.upper())
    logger = SimpleNamespace(**dict.fromkeys(_LEVELS, take))
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _with_pid,
            _in_order,
            _as_event(least),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(least, logging.INFO)),
        logger_factory=lambda *_: logger,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(logging.WARNING)


def _with_pid(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Adds the daemon's pid; events about a worker already carry the worker's."""
    event.setdefault("pid", os.getpid())
    return event


def _as_event(least: int) -> Any:
    def made(_: Any, __: str, event: MutableMapping[str, Any]) -> tuple[tuple[LogEvent], Any]:
        logged = logging.getLevelName(str(event["level"]).upper()) >= least
        return (LogEvent.by_daemon(event, logged=logged),), {}

    return made


def _in_order(_: Any, __: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}
