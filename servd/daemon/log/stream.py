"""Writing lines to a file, a pipe or a terminal that may take none: how many it took is known, and
nobody waits for ever.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections.abc import Callable, Sequence
from typing import IO

_AT_ONCE = 4096
"""Bytes that a pipe takes whole when it is said to be writable (pipe(7), PIPE_BUF)."""

_LOOK = 0.1
"""Seconds after which somebody who waits for a pipe looks whether it is still to be waited for."""


class LogStream:
    """Where lines go. One that is cut off in its middle is ended before the next one begins."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw = raw
        self._torn = False
        self._may_block = _may_block(raw)

    def write(self, lines: Sequence[bytes], patient: Callable[[], bool]) -> tuple[int, str]:
        """Writes lines, waiting for as long as it takes while `patient` says so. Returns how many
        were written whole and, where that is not all, why ("": there was no patience left).
        """
        content = b"\n".join([*([b""] if self._torn else []), *lines, b""])
        view = memoryview(content)
        error = ""
        try:
            while view and (not self._may_block or self._writable(patient)):
                view = view[self.raw.write(view[:_AT_ONCE] if self._may_block else view) or 0 :]
        except (OSError, ValueError) as failure:
            error = str(getattr(failure, "strerror", None) or failure)
        done = len(content) - len(view)
        if done:
            self._torn = content[done - 1 : done] != b"\n"
        if not view:
            return len(lines), ""
        return _whole(lines, done - (len(content) - sum(map(len, lines)) - len(lines))), error

    def _writable(self, patient: Callable[[], bool]) -> bool:
        """Waits until something can be written. False when there is no patience left.

        Without this, a thread that blocks in write(2) could not be told that another stream has
        taken the place of this one; and a pipe that does not block would be asked without a pause.
        """
        poll = select.poll()
        poll.register(self.raw, select.POLLOUT)
        while not poll.poll(_LOOK * 1000):
            if not patient():
                return False
        return True

    def close(self) -> None:
        """Gives it back."""
        with contextlib.suppress(OSError):
            self.raw.close()


def _may_block(raw: IO[bytes]) -> bool:
    try:
        return not stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def _whole(lines: Sequence[bytes], size: int) -> int:
    """How many of `lines` are whole within the first `size` bytes of them and their ends."""
    for number, line in enumerate(lines):
        size -= len(line) + 1
        if size < 0:
            return number
    return len(lines)
