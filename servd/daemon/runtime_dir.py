"""The runtime folder: sockets and state, locked by the daemon that uses it.

It is 0700 for a user. For root it is 0711 with a 0700 folder for state inside: workers of other
users reach their sockets and see nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Sequence

from servd.core.address import UNIX_PATH_LIMIT
from servd.core.errors import StartError

SOCKETS, NOTIFY, APP_METRICS, APP_DATA, PRIVATE = "s", "n", "m", "b", "private"
_INNER_PATH_BYTES = len("/s/0123456789abcdef.sock")


class RuntimeDir:
    """The folder, locked: a second daemon is refused with the pid of the first.

    It is removed at the end if this daemon made it, or if it is `ours` by name. The descriptor
    `lock` holds the lock; a new daemon inherits it, so that no other can come between. `notify`
    holds the workers' notification sockets, `app_metrics` one folder per service for its app's
    metrics, `folded_app_metrics` the daemon's copies of those; only this user can enter `private`.
    """

    def __init__(self, path: str, *, ours: bool = False) -> None:
        self.path = path
        self.ours = ours
        self.private = os.path.join(path, PRIVATE)
        self.notify = os.path.join(path, NOTIFY)
        self.app_metrics = os.path.join(path, APP_METRICS)
        self.folded_app_metrics = os.path.join(self.private, APP_METRICS)
        self.lock = -1
        self.made: list[str] = []
        self._owned = False

    def open(self) -> None:
        """Makes the folder with the right modes and takes the lock.

        Raises `StartError` if it cannot be made, has another owner, is too long for sockets, or is
        in use.
        """
        if len(self.path.encode()) + _INNER_PATH_BYTES > UNIX_PATH_LIMIT:
            raise StartError(
                f"the runtime folder {self.path} is too long for unix sockets: set"
                " daemon.runtime_dir to a shorter one"
            )
        is_root = os.geteuid() == 0
        try:
            self._make_parents(os.path.dirname(self.path), 0o755 if is_root else 0o700)
            self._make(self.path, 0o711 if is_root else 0o700)
            self._make(self.private, 0o700)
            self._take_lock()
            data = os.path.join(self.path, APP_DATA)
            for stale in (self.notify, self.app_metrics, self.folded_app_metrics, data):
                shutil.rmtree(stale, ignore_errors=True)
            for name in (SOCKETS, NOTIFY, APP_METRICS, APP_DATA):
                self._make(os.path.join(self.path, name), 0o711 if is_root else 0o700)
        except OSError as error:
            self.close()
            where = error.filename or self.path
            text = f"the runtime folder {where} cannot be used: {error.strerror}"
            raise StartError(text) from None

    def adopt(self, lock: int, made: Sequence[str]) -> None:
        """Uses the folder of the previous daemon, which keeps it until `own`."""
        os.set_inheritable(lock, False)
        self.lock, self.made = lock, list(made)

    def own(self) -> None:
        """Makes this daemon the owner: it writes its pid, and cleans up at the end."""
        self._owned = True
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{os.getpid()}\n".encode(), 0)

    def hand_over(self) -> None:
        """Leaves the folder to the next daemon."""
        self._owned = False

    def _make_parents(self, path: str, mode: int) -> None:
        missing: list[str] = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for folder in reversed(missing):
            os.mkdir(folder, mode)
            os.chmod(folder, mode)
            self.made.append(folder)

    def _make(self, path: str, mode: int) -> None:
        try:
            os.mkdir(path, mode)
            self.made.append(path)
        except FileExistsError:
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), 0):
                raise StartError(
                    f"the runtime folder {path} belongs to somebody else: remove it, or set"
                    " daemon.runtime_dir"
                ) from None
        if os.lstat(path).st_uid == os.geteuid():
            os.chmod(path, mode)

    def _take_lock(self) -> None:
        path = os.path.join(self.private, "servd.lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            self.made.clear()
            raise StartError(f"another servd (pid {pid}) runs with {self.path}") from None
        self.lock = lock
        self.own()

    def close(self) -> None:
        """Removes its content, and the folder if this daemon made it, unless another owns it."""
        if self.lock >= 0 and self._owned:
            for name in (SOCKETS, NOTIFY, APP_METRICS, APP_DATA, PRIVATE):
                shutil.rmtree(os.path.join(self.path, name), ignore_errors=True)
            if self.ours:
                with contextlib.suppress(OSError):
                    os.rmdir(self.path)
        if self._owned or self.lock < 0:
            for folder in reversed(self.made):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        self.made.clear()
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1
