"""How long a pipe that is written to all the time is left alone between two reads."""

from __future__ import annotations

import fcntl

LARGEST_PIPE = 256 * 1024
"""Bytes that a pipe is given which fills up while it rests."""

_SHORTEST = 1 / 16
"""Of the longest rest: in a pipe that cannot grow and fills up faster."""


class Rest:
    """So long that what comes meanwhile fits in the pipe, but at most `longest` seconds. All rests
    of a length end together, so that several readers wake the loop once.
    """

    def __init__(self, descriptor: int, longest: float) -> None:
        self.seconds = self._longest = longest
        self._descriptor = descriptor
        self._measure()

    def _measure(self) -> None:
        # Writers may leave half of each page empty: a pipe can be full at half its size.
        self._size = fcntl.fcntl(self._descriptor, fcntl.F_GETPIPE_SZ)
        self._most = self._size * 3 // 8

    def took(self, size: int) -> None:
        """Fits it to the bytes that were read at once."""
        if size > self._most and not self._grow():
            self.seconds = max(self.seconds / 2, self._longest * _SHORTEST)
        elif size < self._most // 3:
            self.seconds = min(self.seconds * 2, self._longest)

    def _grow(self) -> bool:
        """Makes the pipe larger; False when it is large enough, or the user has too many."""
        if self._size >= LARGEST_PIPE:
            return False
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, LARGEST_PIPE)
        except OSError:
            return False
        self._measure()
        return True

    def left(self, now: float) -> float:
        """Seconds until the end of the rest that goes on at `now`."""
        return self.seconds - now % self.seconds
