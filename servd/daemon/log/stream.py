"""Writes lines to files, pipes and terminals that may block: never waits unbounded."""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections.abc import Callable, Sequence
from typing import Protocol

_PIPE_WRITE_BYTES = 4096
"""Bytes that a pipe takes whole once it is writable (pipe(7), PIPE_BUF)."""

_POLL_SECONDS = 0.1
"""Interval in which a wait for a pipe checks whether to continue."""


class RawStream(Protocol):
    """What is written to: a file, a pipe, a terminal."""

    def write(self, content: memoryview, /) -> int | None: ...
    def fileno(self) -> int: ...
    def isatty(self) -> bool: ...
    def close(self) -> None: ...


class LogStream:
    """Writes lines. Ends a line that was cut in its middle before the next one begins."""

    def __init__(self, raw: RawStream) -> None:
        self.raw = raw
        self._torn = False
        self._may_block = _may_block(raw)

    def write(self, lines: Sequence[bytes], patient: Callable[[], bool]) -> tuple[int, str]:
        """Writes lines, waiting while `patient` returns True. Returns how many were written whole
        and, if not all, why ("": `patient` returned False).
        """
        content = b"\n".join([*([b""] if self._torn else []), *lines, b""])
        view = memoryview(content)
        error = ""
        try:
            while view and (not self._may_block or self._writable(patient)):
                view = view[
                    self.raw.write(view[:_PIPE_WRITE_BYTES] if self._may_block else view) or 0 :
                ]
        except (OSError, ValueError) as failure:
            error = str(getattr(failure, "strerror", None) or failure)
        done = len(content) - len(view)
        if done:
            self._torn = content[done - 1 : done] != b"\n"
        if not view:
            return len(lines), ""
        return _whole(lines, done - (len(content) - sum(map(len, lines)) - len(lines))), error

    def _writable(self, patient: Callable[[], bool]) -> bool:
        """Waits until something can be written; False when `patient` returns False. A thread
        blocked in write(2) could not learn that another stream has replaced this one.
        """
        poll = select.poll()
        poll.register(self.raw, select.POLLOUT)
        while not poll.poll(_POLL_SECONDS * 1000):
            if not patient():
                return False
        return True

    def close(self) -> None:
        """Closes the stream."""
        with contextlib.suppress(OSError):
            self.raw.close()


def _may_block(raw: RawStream) -> bool:
    try:
        return not stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def _whole(lines: Sequence[bytes], size: int) -> int:
    """Returns how many of `lines` are whole within their first `size` bytes, newlines included."""
    for number, line in enumerate(lines):
        size -= len(line) + 1
        if size < 0:
            return number
    return len(lines)
