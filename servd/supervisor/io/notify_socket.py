"""Socket on which one worker reports its state by the protocol of sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import Callable

from servd.supervisor.io.reader import BoundedReader, ReadBudget
from servd.wire.notify import parse_notification

_DATAGRAM_BYTES = 4096
"""Longest notification, as for systemd (NOTIFY_BUFFER_MAX); the rest of a longer one is cut."""

_LAST_DATAGRAMS = 64
"""Notifications that are read of an exited worker: another process may keep writing."""


_SEARCHABLE = 0o711
"""Mode of a folder through which workers of other users reach their sockets, and see no other's."""


class NotifySocket:
    """One worker's NOTIFY_SOCKET: a datagram socket for its user alone, in the runtime folder, or
    in a temporary one of its own while that is missing.
    """

    def __init__(
        self,
        folder: str,
        owner: int | None,
        on_fields: Callable[[dict[str, str]], None],
        budget: ReadBudget,
    ) -> None:
        self.on_fields = on_fields
        self._owner = owner
        self._budget = budget
        self._of_its_own = "" if os.path.isdir(folder) else tempfile.mkdtemp(prefix="servd-")
        if self._of_its_own:
            os.chmod(self._of_its_own, _SEARCHABLE)
        self.path = os.path.join(self._of_its_own or folder, secrets.token_hex(6))
        self._reader: BoundedReader | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._open()
        except OSError:
            self.close()
            raise

    def _open(self) -> None:
        self._socket.bind(self.path)
        os.chmod(self.path, 0o600)
        if self._owner is not None:
            os.chown(self.path, self._owner, -1)
        self._socket.setblocking(False)
        self._reader = BoundedReader(self._socket.fileno(), self._read_one, self._budget)

    def mend(self) -> list[str]:
        """Recreates the socket if its file was deleted; returns its path. Raises
        OSError.
        """
        if os.path.exists(self.path):
            return []
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.read()
        self.close()
        self._socket = fresh
        self._open()
        return [self.path]

    def _read_one(self) -> bool:
        if self._socket.fileno() < 0:
            return False
        try:
            datagram = self._socket.recv(_DATAGRAM_BYTES)
        except OSError:
            return False
        self.on_fields(parse_notification(datagram))
        return True

    def read(self) -> None:
        """Passes on what has arrived, a bounded number of messages."""
        for _ in range(_LAST_DATAGRAMS):
            if not self._read_one():
                return

    def close(self) -> None:
        """Stops listening and removes the socket's file."""
        if self._reader is not None:
            self._reader.close()
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        if self._of_its_own:
            with contextlib.suppress(OSError):
                os.rmdir(self._of_its_own)
