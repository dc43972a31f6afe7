"""A log file that is renamed when it is large, and that no service can turn against root."""

from __future__ import annotations

import contextlib
import io
import os
import stat

import structlog

from servd.core.events import Event
from servd.host.file_access import files_as, is_changed_by_root_alone
from servd.plan.host import Account

_MODE = 0o640

log = structlog.get_logger()


class LogFile(io.RawIOBase):
    """A file that is appended to. At `max_size` bytes (None or 0: never) it is renamed to `.1`,
    that to `.2`, and so on; `keep` old ones are kept. It is begun anew at the end of a line.

    For a service of another user (`account`) root opens it with that user's rights if the user may
    change the way to it: what stands there may be a link to a file that is not the user's.
    """

    def __init__(
        self,
        path: str,
        *,
        max_size: int | None = None,
        keep: int = 5,
        account: Account | None = None,
    ) -> None:
        """Opens the file. Raises OSError."""
        self._path = path
        self._max_size = max_size
        self._keep = keep
        self._account = account
        self._failed = False
        self._descriptor = self._open()

    def _as_user(self) -> contextlib.AbstractContextManager[None]:
        return files_as(None if is_changed_by_root_alone(self._path) else self._account)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        with self._as_user():  # O_NONBLOCK: a FIFO that nobody reads is an error, and no wait
            descriptor = os.open(self._path, flags | os.O_NONBLOCK, _MODE)
        os.set_blocking(descriptor, True)
        return descriptor

    def fileno(self) -> int:
        """The descriptor of the present file."""
        return self._descriptor

    def writable(self) -> bool:
        """Whether it can be written to: yes."""
        return True

    def write(self, content: memoryview) -> int:  # type: ignore[override]
        """Writes as much as belongs into the present file; returns how much. Raises OSError."""
        if not self._max_size:
            return os.write(self._descriptor, content)
        found = os.fstat(self._descriptor)
        room = self._max_size - found.st_size
        if len(content) <= room or not stat.S_ISREG(found.st_mode):
            return os.write(self._descriptor, content)
        whole_lines = bytes(content[: max(0, room)]).rfind(b"\n") + 1
        if not whole_lines:
            if found.st_size and self._begin_anew():
                return self.write(content)
            whole_lines = bytes(content).find(b"\n") + 1  # a line longer than any file
        return os.write(self._descriptor, content[: whole_lines or None])

    def _begin_anew(self) -> bool:
        """Renames the file, and opens a new one. What cannot be renamed goes on being used."""
        try:
            with self._as_user():
                self._rename()
            fresh = self._open()
        except OSError as error:
            if not self._failed:
                log.error(Event.LOG_NOT_ROTATED, file=self._path, error=error.strerror)
            self._failed = True
            return False
        os.close(self._descriptor)
        self._descriptor = fresh
        self._failed = False
        return True

    def _rename(self) -> None:
        """Raises OSError. A file that another program has moved away is left alone."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._path), os.fstat(self._descriptor)):
                self._rename_ours()

    def _rename_ours(self) -> None:
        if not self._keep:
            os.unlink(self._path)
            return
        for number in range(self._keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
        os.replace(self._path, f"{self._path}.1")

    def close(self) -> None:
        """Closes the file."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()
