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
from collections.abc import Collection, Sequence

from servd.config.load import Loaded
from servd.core import instances
from servd.core.address import UNIX_PATH_LIMIT
from servd.core.basedir import absolute
from servd.core.errors import StartError
from servd.core.instances import NOT_TOLD, Record
from servd.core.paths import runtime_dir_of

SOCKETS, NOTIFY, APP_METRICS, APP_DATA, PRIVATE = "s", "n", "m", "b", "private"
_FOLDERS = (SOCKETS, NOTIFY, APP_METRICS, APP_DATA)
_INNER_PATH_BYTES = len("/s/0123456789abcdef.sock")


class RuntimeDir:
    """The folder, locked: a second daemon is refused with the pid of the first.

    It is removed at the end if this daemon made it, or if it is `ours` by name: then no other
    daemon of the same configuration may run in a folder beside it. The descriptor
    `lock`, of the folder itself, holds the lock (which keeps systemd-tmpfiles away too); a new
    daemon inherits it, so that no other can come between. `notify` holds the workers' notification
    sockets, `app_metrics` one folder per service for its app's metrics, `folded_app_metrics` the
    daemon's copies of those; only this user can enter `private`.
    """

    def __init__(self, path: str, told: Record = NOT_TOLD, *, ours: bool = False) -> None:
        self.path = path
        self.told = told
        self.ours = ours
        self.private = os.path.join(path, PRIVATE)
        self.notify = os.path.join(path, NOTIFY)
        self.app_metrics = os.path.join(path, APP_METRICS)
        self.folded_app_metrics = os.path.join(self.private, APP_METRICS)
        self.lock = -1
        self.made: list[str] = []
        self._owned = False
        self._is_anothers = False

    def open(self) -> None:
        """Makes the folder with the right modes and takes the lock.

        Raises `StartError` if it cannot be made, has another owner, is too long for sockets, or is
        in use.
        """
        if len(self.path.encode()) + _INNER_PATH_BYTES > UNIX_PATH_LIMIT:
            raise StartError(
                f"the path of the runtime folder {self.path} is too long for unix sockets: set"
                " daemon.runtime_dir to a shorter path"
            )
        try:
            self._make_outer()
            self._take_lock()
            data = self._inside(APP_DATA)
            for stale in (self.notify, self.app_metrics, self.folded_app_metrics, data):
                shutil.rmtree(stale, ignore_errors=True)
            self._make_all()
        except StartError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> StartError:
        where = error.filename or self.path
        return StartError(f"cannot use the runtime folder {where}: {error.strerror}")

    def _inside(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _make_outer(self) -> None:
        """Makes the folder itself, and the private one, which hold the lock and the record."""
        is_root = os.geteuid() == 0
        parent = os.path.dirname(self.path)
        self._make_parents(parent, 0o755 if is_root else 0o700)
        if self.ours:
            _require_ours(parent)
        self._make(self.path, 0o711 if is_root else 0o700)
        self._make(self.private, 0o700)

    def _make_all(self) -> None:
        self._make_outer()
        for name in _FOLDERS:
            self._make(self._inside(name), 0o711 if os.geteuid() == 0 else 0o700)

    def adopt(self, lock: int, made: Sequence[str]) -> None:
        """Uses the folder of the previous daemon, which keeps it until `own`."""
        os.set_inheritable(lock, False)
        self.lock, self.made = lock, list(made)

    def own(self) -> None:
        """Makes this daemon the owner: it writes its pid, and cleans up at the end."""
        self._owned = True
        self._record()

    def tell_admin(self, address: str) -> None:
        """Records where the admin API answers from now on."""
        self.told = self.told._replace(admin=address)
        if self._owned:
            self._record()

    def _record(self) -> None:
        with contextlib.suppress(OSError):  # `mend` makes what is missing
            instances.record(self.path, self.told)

    @property
    def is_owned(self) -> bool:
        """Whether this daemon is the owner."""
        return self._owned

    def mend(self) -> list[str]:
        """Makes again what was removed of it; returns the paths. Raises `StartError` if it cannot
        be made, or if another daemon uses it by now.
        """
        wanted = [self.path, self.private, *map(self._inside, _FOLDERS)]
        missing = [path for path in wanted if not os.path.isdir(path)]
        if self.path not in missing and not self._is_locked_folder():
            missing.append(self.path)
        recorded = instances.is_recorded(self.path)
        if not missing and recorded:
            return []
        try:
            self._make_all()
            if self.path in missing:
                self._lock_again()
            if not recorded:
                instances.record(self.path, self.told)
        except OSError as error:
            raise self._unusable(error) from None
        return missing or [instances.record_of(self.path)]

    def _is_locked_folder(self) -> bool:
        """Whether the folder is the one that is locked, and no other in its place."""
        return os.path.samestat(os.stat(self.path), os.fstat(self.lock))

    def _lock_again(self) -> None:
        """Raises `StartError` if another daemon has locked the new folder: it is that one's, until
        it has ended.
        """
        self._is_anothers = True
        lock = self._locked()
        self._is_anothers = False
        os.close(self.lock)
        self.lock = lock

    def remove_sockets_but(self, ours: Collection[str]) -> None:
        """Removes the notification sockets of others: of a daemon that has ended."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.notify):
                path = os.path.join(self.notify, name)
                if path not in ours:
                    os.unlink(path)

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
                    f"the runtime folder {path} belongs to another user: remove it, or set"
                    " daemon.runtime_dir"
                ) from None
        if os.lstat(path).st_uid == os.geteuid():
            os.chmod(path, mode)

    def _take_lock(self) -> None:
        """Raises `StartError` if another daemon has the folder, or the configuration."""
        self.lock = self._locked()
        self._owned = True
        # before it looks: of two that start together, none overlooks the other
        instances.record(self.path, self.told)
        other = self._other_daemon()
        if other is not None:
            instances.forget(self.path)
            os.close(self.lock)
            self._owned, self.lock = False, -1
            raise StartError(
                f"another servd (pid {other.pid}) already runs {self.told.config}"
                f" (started as {other.told.config})"
            )

    def _locked(self) -> int:
        """Returns the locked descriptor of the folder. Raises `StartError` if another has it."""
        lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            self.made.clear()
            first = instances.using(self.path)
            pid = "unknown" if first is None else first.pid
            raise StartError(f"another servd (pid {pid}) already uses {self.path}") from None
        return lock

    def _other_daemon(self) -> instances.Instance | None:
        """Returns the daemon that runs the same configuration by another path."""
        if not (self.ours and self.told.config):
            return None
        return instances.running(self.told.config, os.path.dirname(self.path))

    def close(self) -> None:
        """Removes its content, and the folder if this daemon made it, unless another owns it."""
        if self.lock >= 0 and self._owned and not self._is_anothers:
            for name in (*_FOLDERS, PRIVATE):
                shutil.rmtree(self._inside(name), ignore_errors=True)
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


def folder_for(loaded: Loaded, chosen: str | None, path: str = "") -> RuntimeDir:
    """Returns the folder of a daemon, not opened yet: at `path`, or as configured, or `chosen`."""
    configured = loaded.config.daemon.runtime_dir
    ours = not configured and "RUNTIME_DIRECTORY" not in os.environ
    config = "" if loaded.path.startswith("<") or chosen else absolute(loaded.path)
    told = Record(config, is_configured=bool(configured))
    return RuntimeDir(path or runtime_dir_of(configured, loaded.path, chosen), told, ours=ours)


def _require_ours(folder: str) -> None:
    """Raises `StartError` if a stranger could read or replace what is in a folder that exists."""
    found = os.lstat(folder)
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or others_write:
        raise StartError(
            f"the folder {folder} must belong to you and be writable only by you: remove it, or set"
            " daemon.runtime_dir"
        )
