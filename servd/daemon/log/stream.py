"""Writes lines to files, pipes and terminals that may block: never waits unbounded."""

from __future__ import annotations

import contextlib
import errno
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
        self._takes_all = hasattr(os, "RWF_NOWAIT")  # Linux

    def write(self, lines: Sequence[bytes], patient: Callable[[], bool]) -> tuple[int, str]:
        """Writes lines, waiting while `patient` returns True. Returns how many bytes were not
        written, newlines included, and why ("": `patient` returned False).
        """
        content = b"\n".join([*([b""] if self._torn else []), *lines, b""])
        view = memoryview(content)
        error = ""
        try:
            while view:
                done = self._put(view)
                view = view[done:]
                if not done and not self._wait(patient):
                    break
        except (OSError, ValueError) as failure:
            error = str(getattr(failure, "strerror", None) or failure)
        left = len(view)
        if left < len(content):
            self._torn = content[-left - 1 : -left or None] != b"\n"
        return left, error

    def _put(self, content: memoryview) -> int:
        """Writes what can be written without a wait; returns how much. Not by O_NONBLOCK, which
        would change the descriptors of others too.
        """
        if not self._may_block:
            return self.raw.write(content) or 0
        if self._takes_all:
            try:
                return os.pwritev(self.raw.fileno(), [content], -1, os.RWF_NOWAIT)
            except BlockingIOError:
                return 0
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ESPIPE):
                    raise
                self._takes_all = False  # a terminal, a FIFO, or an older kernel
        if not self._is_writable(0):
            return 0
        return self.raw.write(content[:_PIPE_WRITE_BYTES]) or 0

    def _wait(self, patient: Callable[[], bool]) -> bool:
        """Waits until something can be written; False when `patient` returns False. A thread
        blocked in write(2) could not learn that another stream has replaced this one.
        """
        while not self._is_writable(_POLL_SECONDS):
            if not patient():
                return False
        return True

    def _is_writable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.raw, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        """Closes the stream."""
        with contextlib.suppress(OSError):
            self.raw.close()


def _may_block(raw: RawStream) -> bool:
    try:
        return not stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def whole(lines: Sequence[bytes], left: int) -> int:
    """Returns how many of `lines` are whole where their last `left` bytes are missing, newlines
    included.
    """
    size = sum(map(len, lines)) + len(lines) - left
    for number, line in enumerate(lines):
        size -= len(line) + 1
        if size < 0:
            return number
    return len(lines)
