"""What workers write: lines of their stdout and stderr become events, the last ones are kept.

Lines that begin with the mark are finished events and passed on unparsed; everything else is text
that the program printed.
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
_TURNS = 16

Sink = Callable[[str, bytes], None]
"""Takes the name of a service, and one finished JSON event of its, without a newline."""


def waiting_bytes(descriptor: int) -> int:
    """How many bytes can be read from a pipe or socket now (ioctl(2), FIONREAD); 0 when closed."""
    try:
        answer = fcntl.ioctl(descriptor, termios.FIONREAD, struct.pack("i", 0))
    except (OSError, ValueError):
        return 0
    return int(struct.unpack("i", answer)[0])


class LastLines:
    """The last lines that a worker wrote, as a person would read them."""

    def __init__(self) -> None:
        self._lines: collections.deque[bytes] = collections.deque(maxlen=LAST_LINES)

    def add(self, line: bytes) -> None:
        """Keeps a line, marked or not."""
        self._lines.append(line)

    def text(self) -> list[str]:
        """The lines; events are shown by their message and their traceback."""
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
    """Reads one pipe of a worker on the daemon's loop, without ever blocking it."""

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
        """A bounded number of reads a turn, so that a worker that prints without end does not keep
        the daemon from its other work.
        """
        for _ in range(_TURNS):
            if not self._read():
                return

    def drain(self) -> None:
        """Reads what is in the pipe now: what a worker wrote before it died is not lost, and a
        child that it has left behind and that writes on keeps nobody.
        """
        waiting = waiting_bytes(self.descriptor)
        while waiting > 0 and (taken := self._read()):
            waiting -= taken

    def _read(self) -> int:
        """Reads once; returns how many bytes, 0 when there is nothing to be read now."""
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
        """Stops reading; a last line without a newline still counts."""
        if self.descriptor < 0:
            return
        self._loop.remove_reader(self.descriptor)
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        self.descriptor = -1
        if self._partial:
            line, self._partial = self._partial, b""
            self._line(line)
