"""Socket on which one worker reports its state by the protocol of sd_notify(3)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable

from servd.wire.notify import parse_notification

_READ_DATAGRAM_COUNT = 64


class NotifySocket:
    """One worker's NOTIFY_SOCKET: a datagram socket in the runtime folder, for its user alone."""

    def __init__(self, folder: str, owner: int | None, on_fields: Callable[[dict[str, str]], None]):
        self.path = os.path.join(folder, secrets.token_hex(6))
        self.on_fields = on_fields
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(self.path)
            os.chmod(self.path, 0o600)
            if owner is not None:
                os.chown(self.path, owner, -1)
        except OSError:
            self.close()
            raise
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self.read)

    def read(self) -> None:
        """Passes on what has arrived, a bounded number of messages at a time."""
        for _ in range(_READ_DATAGRAM_COUNT):
            if self._socket.fileno() < 0:
                return
            try:
                datagram = self._socket.recv(65536)
            except OSError:
                return
            self.on_fields(parse_notification(datagram))

    def close(self) -> None:
        """Stops listening and removes the socket's file."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)
