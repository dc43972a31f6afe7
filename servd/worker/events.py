"""Events of a worker: lines of JSON. The daemon adds the worker's identity."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from servd.wire.names import EVENT_MARK
from servd.worker.asgi.request import current

_OUR_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_MARK = EVENT_MARK.decode()
_RETRY_SECONDS = 0.05

MAX_PENDING_BYTES = 256 * 1024
"""Events kept while the pipe is full."""

CLOSE_SECONDS = 1.0
"""Time that an ending worker gives the daemon to read its last events."""

_LEVELS = {"WARN": "warning", "FATAL": "critical"}


class Clock:
    """Makes ISO 8601 timestamps with microseconds; caches the text of the current second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, moment: float) -> str:
        """Formats a time (of `time.time`) in UTC, such as `2026-01-31T12:00:00.123456Z`."""
        second = int(moment)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int((moment - second) * 1_000_000):06d}Z"


class EventWriter:
    """Writes events to the worker's pipe (non-blocking), in one system call per turn of the loop.
    While the pipe is full, up to `MAX_PENDING_BYTES` are kept; further lines are dropped, and
    `dropped` receives their number.
    """

    def __init__(self, descriptor: int, dropped: Callable[[int], None]) -> None:
        self.clock = Clock()
        self._dropped = dropped
        self._descriptor = descriptor
        self._sources: list[Callable[[], list[str]]] = []
        self._pending = b""
        self._retrying = False
        self._writing = threading.RLock()  # a finalizer may log during a write
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Batches the lines of each turn of `loop` from now on."""
        self._loop = loop

    def event(self, level: str, event: str, **fields: Any) -> None:
        """Writes one event immediately, from any thread."""
        line = {"timestamp": self.clock.text(time.time()), "level": level, "event": event, **fields}
        self._put([_MARK + json.dumps(line, default=str) + "\n"])

    def ask(self, source: Callable[[], list[str]]) -> None:
        """Writes the lines that `source` returns after the current turn of the loop."""
        self._sources.append(source)
        if self._loop is None:
            self.flush()
        elif len(self._sources) == 1:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Writes the lines of the sources, as far as the pipe takes them."""
        sources, self._sources = self._sources, []
        lines = [line for source in sources for line in source()]
        if lines:
            self._put(lines)

    def resume(self, held: bytes) -> None:
        """Writes what a `HeldEvents` has kept."""
        with self._writing:
            self._write(held + self._pending)

    def _put(self, lines: list[str]) -> None:
        with self._writing:
            if len(self._pending) > MAX_PENDING_BYTES:
                self._dropped(len(lines))
            else:
                self._write(self._pending + "".join(lines).encode())

    def _write(self, content: bytes) -> None:
        try:
            self._pending = content[os.write(self._descriptor, content) :]
        except BlockingIOError:
            self._pending = content
        except OSError:
            self._pending = b""  # the daemon is gone: there is no reader
        if self._pending and self._loop is not None and not self._retrying:
            with contextlib.suppress(RuntimeError):  # the loop is closed: `close` does the rest
                self._loop.call_soon_threadsafe(self._loop.call_later, _RETRY_SECONDS, self._retry)
                self._retrying = True

    def _retry(self) -> None:
        with self._writing:
            self._retrying = False
            if self._pending:
                self._write(self._pending)

    def close(self) -> None:
        """Writes the remaining lines; waits at most `CLOSE_SECONDS` for the daemon to read."""
        self.flush()
        end = time.monotonic() + CLOSE_SECONDS
        with self._writing:
            self._loop = None
            while self._pending and (remaining := end - time.monotonic()) > 0:
                select.select([], [self._descriptor], [], remaining)
                self._write(self._pending)


class HeldEvents(EventWriter):
    """Keeps events for the writer of a worker that this process may become."""

    def __init__(self) -> None:
        super().__init__(-1, lambda _: None)

    @property
    def content(self) -> bytes:
        """The events so far."""
        return self._pending

    def _write(self, content: bytes) -> None:
        self._pending = content


class EventHandler(logging.Handler):
    """Turns records of the standard library's logging into events."""

    def __init__(self, writer: EventWriter) -> None:
        super().__init__()
        self.writer = writer
        self.saw: Callable[[BaseException], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record; logging itself reports one that cannot be formatted."""
        try:
            fields: dict[str, Any] = {"logger": record.name}
            request = current.get()
            if request is not None:
                fields["request_id"] = request.id
            message = record.getMessage().rstrip("\n")
            if record.exc_info and record.exc_info[1] is not None:
                fields["exception"] = users_traceback(record.exc_info[1])
                if self.saw is not None:
                    self.saw(record.exc_info[1])
            elif message.startswith("Traceback (most recent call last):"):
                # Starlette logs the traceback of a failed lifespan as a message
                fields["exception"] = message
                message = f"app failed to start: {message.splitlines()[-1]}"
            level = _LEVELS.get(record.levelname, record.levelname.lower())
            self.writer.event(level, message, **fields)
        except Exception:  # logging's own contract: a handler never raises
            self.handleError(record)


def users_traceback(error: BaseException | None) -> str:
    """Formats the traceback of `error` without leading frames of servd and importlib."""
    if error is None:
        return ""
    trace = _without_ours(error.__traceback__)
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip("\n")


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not (file.startswith(_OUR_FOLDER) or "importlib" in file):
            break
        trace = trace.tb_next
    return trace


_handler: EventHandler | None = None
_level = ""


def configure_logging(writer: EventWriter, level: str) -> None:
    """Turns everything that this process logs into events, and flushes prints at every line. In a
    fork, what the app has set since stays, unless `level` is another one.
    """
    global _handler, _level
    before, _level = _level, level
    if _handler is not None:
        _handler.writer = writer
        if level != before:
            set_log_level(level)
        return
    _handler = EventHandler(writer)
    logging.getLogger().handlers[:] = [_handler]
    access = logging.getLogger("uvicorn.access")  # avoids rendering lines that are dropped
    access.handlers[:], access.propagate = [], False
    set_log_level(level)
    logging.captureWarnings(True)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def show_exceptions_to(saw: Callable[[BaseException], None]) -> None:
    """Calls `saw` with every exception that is logged: some frameworks log what the app raises, and
    answer with 500 themselves.
    """
    if _handler is not None:
        _handler.saw = saw


def enable_our_loggers() -> None:
    """Takes back what an app's `dictConfig` does to loggers that exist before it."""
    for name in ("servd.worker", "uvicorn.error"):
        logging.getLogger(name).disabled = False


def set_log_level(level: str) -> None:
    """Sets the lowest level that is written."""
    logging.getLogger().setLevel(level.upper())
    quiet = logging.DEBUG if level == "debug" else logging.WARNING
    # Uvicorn's messages, and one line per call to a dependency
    for chatty in ("uvicorn.error", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(quiet)
