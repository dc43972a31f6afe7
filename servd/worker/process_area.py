"""What other processes see of this one in /proc: its command line and its environment.

The kernel shows the memory that held both when the program was started (proc(5), cmdline, environ).
A forked worker has them from its template, so it writes its own there: people find it with ps(1),
and the daemon finds what it has started by its NOTIFY_SOCKET.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

from servd.wire.names import NOTIFY_SOCKET

_ARG_START = 45
"""Index of `arg_start` after the name; `arg_end`, `env_start` and `env_end` follow."""


def _areas() -> tuple[int, ...]:
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return tuple(map(int, fields[_ARG_START : _ARG_START + 4]))
    except (OSError, ValueError):
        return ()


class ProcessArea:
    """The memory of a program that was started with room for the environments of its forks."""

    def __init__(self) -> None:
        found = _areas()
        self._areas = found if len(found) == 4 and all(found) else ()

    def show_title(self, title: str) -> None:
        """Shows `title`."""
        if self._areas:
            arg_start, arg_end, _, _ = self._areas
            _write(arg_start, arg_end, title.encode("utf-8", "surrogateescape"))

    def show(self, title: str, environment: Mapping[str, str]) -> None:
        """Shows `title` and `environment`, cut to the room that there is. Nothing of this process
        may use the initial environment any more.
        """
        if not self._areas:
            return
        _, _, env_start, env_end = self._areas
        self.show_title(title)
        ordered = sorted(environment, key=lambda name: name != NOTIFY_SOCKET)  # it must fit
        pairs = (f"{name}={environment[name]}\0" for name in ordered)
        _write(env_start, env_end, "".join(pairs).encode("utf-8", "surrogateescape"))


def _write(start: int, end: int, content: bytes) -> None:
    size = end - start
    if size > 0:
        ctypes.memmove(start, content[: size - 1].ljust(size, b"\0"), size)
