"""Output of workers: each line of stdout and stderr becomes an event, the last ones are kept.

servd's own worker has a third pipe, for events that it has rendered. What a program prints is text,
whatever it looks like.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from servd.supervisor.io.messages import FinishedEvent, split_events
from servd.supervisor.io.print_file import PrintFile
from servd.supervisor.io.rate_limit import LineRate
from servd.supervisor.io.reader import BoundedReader, ReadBudget
from servd.supervisor.io.rest import Rest

READ_BYTES = 65536
LAST_LINES = 50
LONGEST_LINE_BYTES = 256 * 1024
"""Longer lines are logged in parts."""

_LAST_LINE_CHARACTERS = 4096
_LAST_EVENT_CHARACTERS = 32768
_REQUEST = {"event": "request"}
_SHOWN_FIELDS = frozenset({"event", "error", "exception"})
_LINES_PER_STEP = 64

_REST_SECONDS = 0.1
"""Longest pause between two reads of a worker's events while more come: what it says meanwhile is
passed on together. It lies in the pipe, so that a killed worker does not lose it.
"""

Sink = Callable[[str, bytes | Mapping[str, Any], int], None]
"""Receives the name of a service, and an event: its fields, or finished JSON without a newline at
its end; also several, with newlines between them, and their number.
"""


def waiting_bytes(descriptor: int) -> int:
    """Bytes that a pipe or socket has to read now (ioctl(2), FIONREAD); 0 when closed."""
    try:
        answer = fcntl.ioctl(descriptor, termios.FIONREAD, struct.pack("i", 0))
    except (OSError, ValueError):
        return 0
    return int(struct.unpack("i", answer)[0])


class LastLines:
    """The last lines that a worker wrote, in readable form."""

    def __init__(self) -> None:
        self._lines: collections.deque[str | Mapping[str, Any]] = collections.deque(
            maxlen=LAST_LINES
        )

    def add(self, line: str | Mapping[str, Any]) -> None:
        """Keeps a printed line, or of an event what will be shown; both bounded."""
        if isinstance(line, str):
            self._lines.append(line[:_LAST_LINE_CHARACTERS])
        else:
            kept = _SHOWN_FIELDS & line.keys()
            self._lines.append({name: line[name][:_LAST_EVENT_CHARACTERS] for name in kept})

    def add_requests(self, count: int) -> None:
        """Counts lines of the access log, which nobody wants to read here."""
        self._lines.extend([_REQUEST] * min(count, LAST_LINES))

    def text(self) -> list[str]:
        """The lines; of an event its message and its traceback."""
        return [shown for line in self._lines for shown in self._shown(line)]

    @staticmethod
    def _shown(line: str | Mapping[str, Any]) -> list[str]:
        if isinstance(line, str):
            return [line]
        if line["event"] == "request":
            return []
        message = line["event"]
        if "error" in line:
            message += f": {line['error']}"
        shown = [message, *line.get("exception", "").splitlines()]
        return [text[:_LAST_LINE_CHARACTERS] for text in shown]


class OutputPipe:
    """Reads one pipe of a worker on the daemon's loop, without blocking it."""

    def __init__(
        self,
        descriptor: int,
        identity: Mapping[str, Any],
        stream: str,
        *,
        last: LastLines,
        sink: Sink,
        now: Callable[[], str],
        rate: LineRate,
        budget: ReadBudget,
        file: PrintFile | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.identity = identity
        self.stream = stream
        self.last = last
        self.sink = sink
        self.now = now
        self.file = file
        self._rate = rate
        self._finished = FinishedEvent(identity) if stream == "events" else None
        self._partial = b""
        self._part = 0
        self._is_empty = False
        self._lines: collections.deque[bytes] = collections.deque()
        os.set_blocking(descriptor, False)
        rest = Rest(descriptor, _REST_SECONDS) if stream == "events" else None
        self._reader = BoundedReader(descriptor, self._step, budget, rest)

    def _step(self) -> int:
        """Logs some of the lines that were read, or reads more; returns how much, 0 at the end."""
        taken = 1
        if not self._lines:
            if self._is_empty:
                self._is_empty = False
                return 0
            taken = self._read()
            self._is_empty = 0 < taken < READ_BYTES
        self._log_some()
        return taken

    def _log_some(self) -> None:
        for _ in range(min(_LINES_PER_STEP, len(self._lines))):
            self._line(self._lines.popleft())

    def drain(self) -> None:
        """Reads what the pipe holds now: the last words of a dead worker, but not what a surviving
        child writes later.
        """
        waiting = waiting_bytes(self.descriptor)
        while waiting > 0 and (taken := self._read()):
            waiting -= taken
        while self._lines:
            self._log_some()

    def _read(self) -> int:
        """Reads once; returns the number of bytes, 0 when there is nothing to read now."""
        if self.descriptor < 0:
            return 0
        try:
            chunk = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            chunk = b""
        if not chunk:
            self.close()
            return 0
        content = self._partial + chunk
        if self._finished is None:
            lines = content.split(b"\n")
            self._partial = lines.pop()
        else:
            lines, self._partial = split_events(content)
        self._take(lines)
        if len(self._partial) > LONGEST_LINE_BYTES:
            self._part += 1
            self._take_part(self._partial, part=self._part)
            self._partial = b""
        return len(chunk)

    def _take(self, lines: list[bytes]) -> None:
        """Keeps the lines that may be logged; the others are dropped, and counted."""
        if lines and self._part:
            self._take_part(lines.pop(0), part=self._part + 1, last_part=True)
            self._part = 0
        if self._finished is None:
            printed, lines = lines, [line for line in lines if line]
            admitted = self._rate.admit(len(lines))
            if admitted < len(lines):
                self.last.add(_text_of(lines[-1]))
                del lines[admitted:]
                printed = lines
            self._print(printed)
        self._lines.extend(lines)

    def _print(self, lines: Iterable[bytes]) -> None:
        """Writes lines to the service's own file, as they are."""
        if self.file is not None:
            for line in lines:
                self.file.put(line)

    def _take_part(self, line: bytes, **part: Any) -> None:
        """Logs a part of a line that is too long for one event, in order with the other lines."""
        while self._lines:
            self._log_some()
        if self._rate.admit(1):
            self._print([line])
            self._log_text(line, **part)

    def _line(self, line: bytes) -> None:
        if self._finished is not None:
            count = line.count(b"\n") + 1
            if count > 1:
                self.last.add_requests(count)
                self._pass_on(self._finished.requests(line), count)
                return
            found = self._finished.read(line)
            if found is not None:
                event, fields = found
                self.last.add(fields)
                self._pass_on(event, 1)
                return
        if line:
            if self._finished is not None:
                self._print([line])
            self._log_text(line)

    def _pass_on(self, finished: bytes, count: int) -> None:
        if self.file is not None:
            self.file.put(finished, count)
        self.sink(self.identity["service"], finished, count)

    def _log_text(self, line: bytes, **details: Any) -> None:
        text = _text_of(line)
        self.last.add(text)
        event = {
            "timestamp": self.now(),
            "level": "info",
            "event": text,
            "stream": self.stream,
            **details,
            **self.identity,
        }
        self.sink(self.identity["service"], event, 1)

    def close(self) -> None:
        """Stops reading; a last line without a newline counts too."""
        if self.descriptor < 0:
            return
        self._reader.close()
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        self.descriptor = -1
        if self._partial:
            line, self._partial = self._partial, b""
            self._take([line])
        while self._lines:
            self._log_some()


def _text_of(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").rstrip("\r")
