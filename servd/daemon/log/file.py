"""A log file that is renamed when it is large, and that no service can turn against root."""

from __future__ import annotations

import contextlib
import io
import os
import stat

import structlog

from servd.core.events import Event
from servd.host.file_access import files_as, rights_for
from servd.plan.host import Account

_MODE = 0o640
_DEVICES = ("/dev/", "/proc/")
"""A file here is another's under another name: it is not renamed."""

log = structlog.get_logger()


class LogFile(io.RawIOBase):
    """A file that is appended to. At `max_size` bytes (None or 0: never) it is renamed to `.1`,
    that to `.2`, and so on; `keep` old ones are kept. It is rotated at the end of a line. It
    belongs to one thread.

    Root opens it with the rights of the service's user (`account`), or of its folder's owner, if
    that user may change the way to it: what stands there may be a link to anything.
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
        self._target = path
        self._max_size = None if path.startswith(_DEVICES) else max_size
        self._keep = keep
        self._account = account
        self._failed = False
        self._descriptor = self._open()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        flags |= os.O_NONBLOCK  # a FIFO that nobody reads is an error, and no wait
        rights = rights_for(self._path, self._account)
        with files_as(rights.account):
            descriptor = os.open(self._path, flags | (0 if rights.follow else os.O_NOFOLLOW), _MODE)
            self._target = os.path.realpath(self._path)
        os.set_blocking(descriptor, True)
        return descriptor

    def fileno(self) -> int:
        """The descriptor of the present file. Raises ValueError once it is closed."""
        if self._descriptor < 0:
            raise ValueError("the log file is closed")
        return self._descriptor

    def writable(self) -> bool:
        """Whether it can be written to: yes."""
        return True

    def write(self, content: memoryview) -> int:  # type: ignore[override]
        """Writes as much as belongs into the present file; returns how much. Raises OSError."""
        descriptor = self.fileno()
        if not self._max_size:
            return os.write(descriptor, content)
        found = os.fstat(descriptor)
        room = self._max_size - found.st_size
        if len(content) <= room or not stat.S_ISREG(found.st_mode):
            return os.write(descriptor, content)
        whole_lines = bytes(content[: max(0, room)]).rfind(b"\n") + 1
        if not whole_lines:
            if found.st_size and self._begin_anew():
                return self.write(content)
            whole_lines = bytes(content).find(b"\n") + 1  # a line longer than any file
        return os.write(descriptor, content[: whole_lines or None])

    def _begin_anew(self) -> bool:
        """Renames the file and opens a new one. If renaming fails, the file stays in use."""
        try:
            with files_as(rights_for(self._path, self._account).account):
                self._rename()
            fresh = self._open()
            if not stat.S_ISREG(os.fstat(fresh).st_mode):
                os.close(fresh)
                raise OSError(22, "the path is not a regular file")
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
            if os.path.samestat(os.stat(self._target), os.fstat(self._descriptor)):
                self._rename_ours()

    def _rename_ours(self) -> None:
        if not self._keep:
            os.unlink(self._target)
            return
        for number in range(self._keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._target}.{number}", f"{self._target}.{number + 1}")
        os.replace(self._target, f"{self._target}.1")

    def close(self) -> None:
        """Closes the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        super().close()
