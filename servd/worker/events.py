"""Events of a worker: finished JSON lines on stdout, which the daemon passes on unparsed."""

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
_PAUSE = 0.05

MOST_KEPT = 256 * 1024
"""Bytes of events that wait for a pipe that is full."""

LAST_WORDS = 1.0
"""Seconds that a worker waits at its end for its last events to be read."""

_LEVELS = {"WARN": "warning", "FATAL": "critical"}


class Clock:
    """Timestamps in ISO 8601 with microseconds; the part down to the second is made once each."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, moment: float) -> str:
        """A time (of `time.time`) in UTC, such as `2026-01-31T12:00:00.123456Z`."""
        second = int(moment)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int((moment - second) * 1_000_000):06d}Z"


class EventWriter:
    """Writes events of this worker to its pipe for them, and never waits for the daemon to read.

    Within a running loop, sources are asked for their lines once per turn of the loop: under load
    one system call serves many requests. What the pipe does not take is kept, up to `MOST_KEPT`
    bytes; beyond that new lines are dropped, and `dropped` is told how many. `descriptor` must not
    block.
    """

    def __init__(self, service: str, worker: int, generation: int, descriptor: int) -> None:
        self.identity = {
            "service": service,
            "worker": worker,
            "pid": os.getpid(),
            "generation": generation,
        }
        self.clock = Clock()
        self.dropped: Callable[[int], None] = lambda _: None
        self._descriptor = descriptor
        self._sources: list[Callable[[], list[str]]] = []
        self._kept = b""
        self._again = False
        self._writing = threading.RLock()  # logging in a finalizer may come in between
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on, lines written from within `loop` are gathered."""
        self._loop = loop

    def event(self, level: str, event: str, **fields: Any) -> None:
        """Writes one event at once. Any thread may."""
        line = {"timestamp": self.clock.text(time.time()), "level": level, "event": event, **fields}
        self._put([_MARK + json.dumps(line | self.identity, default=str) + "\n"])

    def ask(self, source: Callable[[], list[str]]) -> None:
        """Writes the lines that `source` will have, once the present turn of the loop is over."""
        self._sources.append(source)
        if self._loop is None:
            self.flush()
        elif len(self._sources) == 1:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Writes what the sources have, as far as the pipe takes it."""
        sources, self._sources = self._sources, []
        lines = [line for source in sources for line in source()]
        if lines:
            self._put(lines)

    def _put(self, lines: list[str]) -> None:
        with self._writing:
            if len(self._kept) > MOST_KEPT:
                self.dropped(len(lines))
            else:
                self._write(self._kept + "".join(lines).encode())

    def _write(self, content: bytes) -> None:
        try:
            self._kept = content[os.write(self._descriptor, content) :]
        except BlockingIOError:
            self._kept = content
        except OSError:
            self._kept = b""  # the daemon is gone, and with it everyone who could read this
        if self._kept and self._loop is not None and not self._again:
            with contextlib.suppress(RuntimeError):  # the loop is closed: `close` does the rest
                self._loop.call_soon_threadsafe(self._loop.call_later, _PAUSE, self._try_again)
                self._again = True

    def _try_again(self) -> None:
        with self._writing:
            self._again = False
            if self._kept:
                self._write(self._kept)

    def close(self) -> None:
        """Writes the rest, waiting for the daemon to read for at most `LAST_WORDS` seconds."""
        self.flush()
        end = time.monotonic() + LAST_WORDS
        with self._writing:
            self._loop = None
            while self._kept and (left := end - time.monotonic()) > 0:
                select.select([], [self._descriptor], [], left)
                self._write(self._kept)


class EventHandler(logging.Handler):
    """Records of the standard library's logging become events."""

    def __init__(self, writer: EventWriter) -> None:
        super().__init__()
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record; one that cannot be formatted is reported by logging itself."""
        try:
            fields: dict[str, Any] = {"logger": record.name}
            request = current.get()
            if request is not None:
                fields["request_id"] = request.id
            message = record.getMessage().rstrip("\n")
            if record.exc_info and record.exc_info[0] is not None:
                fields["exception"] = users_traceback(record.exc_info[1])
            elif message.startswith("Traceback (most recent call last):"):
                # Starlette hands the traceback of a failed lifespan over as a message
                fields["exception"] = message
                message = f"the app failed to start: {message.splitlines()[-1]}"
            level = _LEVELS.get(record.levelname, record.levelname.lower())
            self.writer.event(level, message, **fields)
        except Exception:  # logging's own contract: a handler never raises
            self.handleError(record)


def users_traceback(error: BaseException | None) -> str:
    """The traceback of `error` without servd's own and importlib's frames at its beginning."""
    if error is None:
        return ""
    return "".join(
        traceback.format_exception(type(error), error, _without_ours(error.__traceback__))
    ).rstrip("\n")


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    first = trace
    while first is not None:
        file = first.tb_frame.f_code.co_filename
        if not (file.startswith(_OUR_FOLDER) or "importlib" in file):
            return first
        first = first.tb_next
    return None


def configure_logging(writer: EventWriter, level: str) -> None:
    """Everything that is logged in this process becomes an event; prints come out line by line."""
    logging.getLogger().handlers[:] = [EventHandler(writer)]
    access = logging.getLogger("uvicorn.access")  # which would be rendered before it is dropped
    access.handlers[:], access.propagate = [], False
    set_log_level(level)
    logging.captureWarnings(True)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def set_log_level(level: str) -> None:
    """The least severe events that are written, from now on."""
    logging.getLogger().setLevel(level.upper())
    quiet = logging.DEBUG if level == "debug" else logging.WARNING
    # Uvicorn's own, and one line for every call of a dependency
    for chatty in ("uvicorn.error", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(quiet)
