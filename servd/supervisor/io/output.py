"""Output of workers: lines of stdout and stderr become events, the last ones are kept.

A line that begins with `EVENT_MARK` is a finished event and passed on unparsed; any other is text.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import json
import os
import struct
import termios
from collections.abc import Callable
from typing import Any

from servd.wire.names import EVENT_MARK

READ_SIZE = 65536
LAST_LINES = 50
LONGEST_LINE = 256 * 1024
_READS_PER_TURN = 16

Sink = Callable[[str, bytes], None]
"""Receives the name of a service and one finished JSON event, without a newline."""


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
        self._lines: collections.deque[bytes] = collections.deque(maxlen=LAST_LINES)

    def add(self, line: bytes) -> None:
        """Keeps a line, marked or not."""
        self._lines.append(line)

    def text(self) -> list[str]:
        """The lines; of an event its message and its traceback."""
        return [shown for line in self._lines for shown in self._shown(line)]

    @staticmethod
    def _shown(line: bytes) -> list[str]:
        text = line.decode("utf-8", errors="replace")
        if not line.startswith(EVENT_MARK):
            return [text]
        try:
            event = json.loads(text[1:])
        except ValueError:
            return [text]
        if event.get("event") == "request":
            return []
        message = str(event.get("event", ""))
        if "error" in event:
            message += f": {event['error']}"
        return [message, *str(event.get("exception", "")).splitlines()]


class OutputPipe:
    """Reads one pipe of a worker on the daemon's loop, without blocking it."""

    def __init__(
        self,
        descriptor: int,
        identity: dict[str, Any],
        stream: str,
        last: LastLines,
        sink: Sink,
        now: Callable[[], str],
    ) -> None:
        self.descriptor = descriptor
        self.identity = identity
        self.stream = stream
        self.last = last
        self.sink = sink
        self.now = now
        self._partial = b""
        self._loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        """Bounds the reads per turn, so that endless output does not hold up the daemon."""
        for _ in range(_READS_PER_TURN):
            if not self._read():
                return

    def drain(self) -> None:
        """Reads what the pipe holds now: the last words of a dead worker, but not what a surviving
        child writes later.
        """
        waiting = waiting_bytes(self.descriptor)
        while waiting > 0 and (taken := self._read()):
            waiting -= taken

    def _read(self) -> int:
        """Reads once; returns the number of bytes, 0 when there is nothing to read now."""
        if self.descriptor < 0:
            return 0
        try:
            chunk = os.read(self.descriptor, READ_SIZE)
        except BlockingIOError:
            return 0
        except OSError:
            chunk = b""
        if not chunk:
            self.close()
            return 0
        lines = (self._partial + chunk).split(b"\n")
        self._partial = lines.pop()
        for line in lines:
            self._line(line)
        if len(self._partial) > LONGEST_LINE:
            self._line(self._partial)
            self._partial = b""
        return len(chunk)

    def _line(self, line: bytes) -> None:
        if not line:
            return
        self.last.add(line)
        if line.startswith(EVENT_MARK):
            self.sink(self.identity["service"], line[1:])
            return
        event = {
            "timestamp": self.now(),
            "level": "info",
            "event": line.decode("utf-8", errors="replace").rstrip("\r"),
            "stream": self.stream,
        }
        self.sink(self.identity["service"], json.dumps(event | self.identity).encode())

    def close(self) -> None:
        """Stops reading; a last line without a newline counts too."""
        if self.descriptor < 0:
            return
        self._loop.remove_reader(self.descriptor)
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        self.descriptor = -1
        if self._partial:
            line, self._partial = self._partial, b""
            self._line(line)
