"""The runtime folder: where sockets and state live, locked by the daemon that uses it.

For a user it is 0700. For root it is 0711 with a 0700 folder for state inside, so that workers of
other users reach the sockets that are meant for them and see nothing else.
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
_LOCK = "servd.lock"
_LONGEST_NAME_INSIDE = len("/s/0123456789abcdef.sock")


class RuntimeDir:
    """The folder, made and locked; a second daemon on it is refused with the pid of the first.

    At the end it is removed if this daemon made it, or if it is `ours` by name, even though a
    killed one made it. `lock` is the descriptor that holds it: a daemon that takes the place of
    this one gets it, and nobody else can come between.
    """

    def __init__(self, path: str, *, ours: bool = False) -> None:
        self.path = path
        self.ours = ours
        self.lock = -1
        self.made: list[str] = []
        self._owned = False

    @property
    def notify(self) -> str:
        """The folder of the workers' notification sockets."""
        return os.path.join(self.path, NOTIFY)

    @property
    def app_metrics(self) -> str:
        """The folder with one folder for each service, for the metrics of its app."""
        return os.path.join(self.path, APP_METRICS)

    @property
    def folded_app_metrics(self) -> str:
        """Where the daemon keeps its own copies of them."""
        return os.path.join(self.path, PRIVATE, APP_METRICS)

    @property
    def private(self) -> str:
        """The folder that no other user can enter."""
        return os.path.join(self.path, PRIVATE)

    def open(self) -> None:
        """Makes the folder with the right modes and takes the lock.

        Raises `StartError` when it cannot be made, is somebody else's, is too long for sockets, or
        is in use.
        """
        if len(self.path.encode()) + _LONGEST_NAME_INSIDE > UNIX_PATH_LIMIT:
            raise StartError(
                f"the runtime folder {self.path} is too long for unix sockets: set"
                " daemon.runtime_dir to a shorter one"
            )
        is_root = os.geteuid() == 0
        try:
            self._make_parents(os.path.dirname(self.path), 0o755 if is_root else 0o700)
            self._make(self.path, 0o711 if is_root else 0o700)
            self._make(os.path.join(self.path, PRIVATE), 0o700)
            self._take_lock()
            data = os.path.join(self.path, APP_DATA)
            for stale in (self.notify, self.app_metrics, self.folded_app_metrics, data):
                shutil.rmtree(stale, ignore_errors=True)
            for name in (SOCKETS, NOTIFY, APP_METRICS, APP_DATA):
                self._make(os.path.join(self.path, name), 0o711 if is_root else 0o700)
        except OSError as error:
            self.close()
            where = error.filename or self.path
            raise StartError(
                f"the runtime folder {where} cannot be used: {error.strerror}"
            ) from None

    def adopt(self, lock: int, made: Sequence[str]) -> None:
        """The folder of the daemon before, which goes on using it until `own`."""
        os.set_inheritable(lock, False)
        self.lock, self.made = lock, list(made)

    def own(self) -> None:
        """It is this daemon's alone to say who runs here, and to clean up."""
        self._owned = True
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{os.getpid()}\n".encode(), 0)

    def hand_over(self) -> None:
        """It is the next daemon's from now on."""
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
        path = os.path.join(self.path, PRIVATE, _LOCK)
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
        """Removes what was put there and, where this daemon made it, the folder; nothing of it
        where another daemon lives there.
        """
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
