"""How long a pipe that is written to all the time is left alone between two reads."""

from __future__ import annotations

import contextlib
import fcntl

LARGE_PIPE = 256 * 1024
"""Bytes that a pipe is given which rests: a burst of a worker must fit."""

_USUAL_PIPE = 64 * 1024

SHORTEST_SECONDS = 0.005


class Rest:
    """So long that what comes meanwhile fits in the pipe, but at most `longest` seconds. All rests
    of a length end together, so that several readers wake the loop once.
    """

    def __init__(self, descriptor: int, longest: float) -> None:
        self.seconds = self._longest = longest
        self._descriptor = descriptor
        self._most = 0

    def after(self, size: int, now: float) -> float:
        """Returns the seconds from `now` to the next read, after one of so many bytes."""
        if not self._most:
            self._measure()
        if size > self._most:
            self.seconds = max(self.seconds / 2, SHORTEST_SECONDS)
        elif size < self._most // 3:
            self.seconds = min(self.seconds * 2, self._longest)
        return self.seconds - now % self.seconds

    def _measure(self) -> None:
        size = _USUAL_PIPE
        with contextlib.suppress(AttributeError):  # not Linux
            with contextlib.suppress(OSError):  # the user has too many
                fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, LARGE_PIPE)
            size = fcntl.fcntl(self._descriptor, fcntl.F_GETPIPE_SZ)
        self._longest *= min(1.0, size / LARGE_PIPE)
        self.seconds = self._longest = max(self._longest, SHORTEST_SECONDS)
        # Writers may leave half of each page empty: a pipe can be full at half its size.
        self._most = size * 3 // 8
