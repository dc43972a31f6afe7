"""The daemon's log, and with it that of everything it runs.

structlog renders what the daemon says; lines of workers arrive finished. Both end in one sink,
whose thread writes: a slow terminal or disk drops lines (counted), and never stops the loop.
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
from typing import IO, Any

import structlog

from servd.config.model import DaemonLog
from servd.core.errors import StartError
from servd.core.events import Event
from servd.daemon.log import journald
from servd.daemon.log.console import console_renderer
from servd.daemon.log.event import LogEvent, TakeEvent
from servd.daemon.log.stream import LogStream

MOST_WAITING = 20_000
MOST_BYTES = 64 * 2**20
"""Lines that may wait to be written, and their bytes; beyond that, new ones are dropped."""

SAY_AGAIN = 10.0
"""Seconds between two times that lost lines are said."""

_LAST_WORDS = 2.0
"""Seconds for what waits to be written at the end."""

log = structlog.get_logger()


def now() -> str:
    """The time as it stands in events: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def open_log(options: DaemonLog) -> IO[bytes]:
    """What the log is written to: the file, or stderr. Raises `StartError`."""
    if not options.file:
        return open(os.dup(2), "wb", buffering=0)
    try:
        return open(options.file, "ab", buffering=0)
    except OSError as error:
        raise StartError(f"cannot write the log {options.file}: {error.strerror}") from None


class LogSink:
    """Takes events and writes them, as JSON or for people."""

    def __init__(self, options: DaemonLog, stream: IO[bytes] | None = None) -> None:
        self.options = options
        self.dropped = 0
        self._stream = LogStream(stream or open_log(options))
        self._console = self._renderer()
        self._journal = self._way_to_journal() if stream is None else None
        self._waiting: collections.deque[LogEvent] = collections.deque()
        self._size = 0
        self._lost, self._why = 0, ""
        self._say_at = self._trouble_at = 0.0
        self._works = True
        self._end = math.inf
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="servd-log", daemon=True)
        self._thread.start()

    def _renderer(self) -> Callable[[LogEvent], bytes] | None:
        """For people on a terminal; None where events are written as JSON."""
        terminal = self._stream.raw.isatty()
        form = self.options.format
        if form == "console" or (form == "auto" and not self.options.file and terminal):
            return console_renderer(colours=terminal)
        return None

    def _way_to_journal(self) -> journald.JournaldClient | None:
        """Where stderr goes to systemd's journal anyway, and nobody has asked for a form."""
        if self.options.file or self.options.format != "auto" or not journald.is_stderr(os.environ):
            return None
        try:
            return journald.JournaldClient()
        except OSError:
            return None

    def put(self, line: LogEvent) -> None:
        """Queues one event."""
        size = len(line.json)
        with self._wake:
            full = len(self._waiting) >= MOST_WAITING or self._size + size > MOST_BYTES
            if full and threading.current_thread() is not self._thread:  # what it says has room
                self._lose(1, "they could not be written fast enough")
                return
            self._waiting.append(line)
            self._size += size
            self._wake.notify()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the loop
        while True:
            with self._wake:
                while not self._waiting and not self._closing and not self._is_time_to_say:
                    self._wake.wait(self._until_said)
                lines = list(self._waiting)
                self._waiting.clear()
                self._size = 0
                stream, console, journal = self._stream, self._console, self._journal
            if journal is not None:
                for line in lines:
                    journal.put(line)
            elif lines:
                try:
                    self._write(stream, lines, console)
                except Exception as error:  # no line, whatever is in it, may end the log
                    self._lose(len(lines), f"internal error: {error!r}")
            if self._is_time_to_say:
                self._say_what_is_lost()
            elif not lines and self._closing:
                return

    def _write(
        self, stream: LogStream, lines: list[LogEvent], console: Callable[[LogEvent], bytes] | None
    ) -> None:
        """Takes the log, not the services, when it fails: what is lost is counted. What `stream`
        has not taken when another one has come into its place is for that.
        """
        shown = [line.json if console is None else console(line) for line in lines]
        done, error = stream.write(
            shown, lambda: stream is self._stream and time.monotonic() < self._end
        )
        self._works = done == len(lines)
        if self._works:
            return
        with self._wake:
            if stream is not self._stream:
                self._waiting.extendleft(reversed(lines[done:]))
                self._size += sum(len(line.json) for line in lines[done:])
                return
            self._lose(len(lines) - done, error or "nobody read them")
        if error and time.monotonic() >= self._trouble_at:
            self._trouble_at = time.monotonic() + 6 * SAY_AGAIN
            log.error(Event.LOG_NOT_WRITTEN, error=error, file=self.options.file or "stderr")

    def _lose(self, lines: int, why: str) -> None:
        self.dropped += lines
        self._lost += lines
        self._why = why

    @property
    def _until_said(self) -> float | None:
        """Seconds until lost lines are to be said: once something can be written again."""
        if not self._lost or not self._works or self._closing:
            return None
        return max(0.0, self._say_at - time.monotonic())

    @property
    def _is_time_to_say(self) -> bool:
        return self._until_said == 0.0

    def _say_what_is_lost(self) -> None:
        with self._wake:
            lines, self._lost = self._lost, 0
            self._say_at = time.monotonic() + SAY_AGAIN
        log.warning(Event.LOG_LINES_LOST, lines=lines, reason=self._why, in_all=self.dropped)

    def adopt(self, options: DaemonLog, stream: IO[bytes]) -> None:
        """Writes to `stream` from now on, as `options` say; the old one is closed."""
        with self._wake:
            old, self._stream, self.options = self._stream, LogStream(stream), options
            self._console = self._renderer()
            self._journal = self._way_to_journal()
        old.close()

    def reopen(self) -> None:
        """Opens the log file anew, after it was moved away (SIGUSR1, logrotate).

        Raises `StartError` when it cannot be opened; the old one stays in use then.
        """
        if not self.options.file:
            return
        fresh = open_log(self.options)
        with self._wake:
            old, self._stream = self._stream, LogStream(fresh)
        old.close()

    def close(self) -> None:
        """Writes what waits, for at most two seconds, and ends the thread."""
        with self._wake:
            self._closing = True
            self._end = time.monotonic() + _LAST_WORDS
            self._wake.notify()
        self._thread.join(_LAST_WORDS + 0.5)


class _Logger:
    """What structlog's last processor hands the event to."""

    def __init__(self, take: TakeEvent) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = take


class _ToStructlog(logging.Handler):
    """Records of libraries (asyncio, tornado) become events."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )


def configure(take: TakeEvent, level: str) -> None:
    """Hands everything that this process says to `take`: what is of `level`, or more severe, is to
    be logged; nothing of "info" and above is left out, since hooks and whoever follows events want
    it, however quiet the log is. For process entry points only.
    """
    least = logging.getLevelName(level.upper())

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _with_pid,
            _in_front("timestamp", "level", "event"),
            _as_event(least),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(least, logging.INFO)),
        logger_factory=lambda *_: _Logger(take),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(logging.WARNING)


def _with_pid(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Events about a worker carry its pid; all others the daemon's."""
    event.setdefault("pid", os.getpid())
    return event


def _as_event(least: int) -> Any:
    """Makes the argument of `_Logger`'s methods."""

    def made(_: Any, __: str, event: MutableMapping[str, Any]) -> tuple[tuple[LogEvent], Any]:
        logged = logging.getLevelName(str(event["level"]).upper()) >= least
        return (LogEvent.by_daemon(event, logged=logged),), {}

    return made


def _in_front(*keys: str) -> Any:
    def ordered(_: Any, __: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
        first = {key: event.pop(key) for key in keys if key in event}
        return {**first, **event}

    return ordered
