"""The kernel's reports of changes in folders (inotify(7)): without a thread, and without watchfiles
and anyio, which hold 1.8 MiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Callable, Iterable

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_MASK = (
    _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
    | _DELETE_SELF | _MOVE_SELF
)  # fmt: skip

_PAUSE_SECONDS = 0.05
"""Time between two calls: a log in a watched folder changes all the time."""


class FolderEvents:
    """Calls `changed` when entries of `folders`, or these themselves, have changed. Raises OSError.
    Other systems than Linux report nothing.
    """

    def __init__(self, folders: Iterable[str], changed: Callable[[], object]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._descriptor = _watch(folders) if sys.platform == "linux" else -1
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def _listen(self) -> None:
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, 65536):
                pass
        self._loop.remove_reader(self._descriptor)
        self._pause = self._loop.call_later(_PAUSE_SECONDS, self._listen)
        self._changed()

    def close(self) -> None:
        """Ends the reports."""
        if self._pause is not None:
            self._pause.cancel()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)


def _watch(folders: Iterable[str]) -> int:
    """Returns a descriptor that reports what happens in `folders`."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise _error("fs.inotify.max_user_instances", errno.EMFILE)
    for folder in folders:
        if libc.inotify_add_watch(descriptor, os.fsencode(folder), _MASK) < 0:
            error = _error("fs.inotify.max_user_watches", errno.ENOSPC, folder)
            os.close(descriptor)
            raise error
    return descriptor


def _error(limit: str, reached: int, *folder: str) -> OSError:
    number = ctypes.get_errno()
    text = f"the limit {limit} is reached" if number == reached else os.strerror(number)
    return OSError(number, text, *folder)
