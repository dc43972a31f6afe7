"""The worker's end of its private channel to the daemon.

The daemon's death is the channel's end of file, noticed in a native thread, because a blocked event
loop runs no handler. The same thread holds the hard deadline of a drain.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from servd.wire.listen_fds import first_free_fd

HARD_EXIT_GRACE = 5.0
"""Seconds after the drain's deadline until a worker that has not exited is ended from within."""

_PR_SET_PDEATHSIG = 1
_MOST_DESCRIPTORS = 16


class Channel:
    """One message is one line of JSON."""

    def __init__(self, descriptor: int) -> None:
        # out of the way of the listening sockets, which go to 3, 4, ...
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, first_free_fd())
        os.close(descriptor)
        self._socket = socket.socket(fileno=moved)
        self._buffer = b""
        self._descriptors: collections.deque[int] = collections.deque()
        self._sending = threading.Lock()

    def receive(self) -> str | None:
        """The next message, waiting for it; None when the daemon is gone."""
        while b"\n" not in self._buffer:
            try:
                chunk, descriptors, _, _ = socket.recv_fds(
                    self._socket, 65536, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
            except OSError:
                return None
            self._descriptors.extend(descriptors)
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def descriptor(self) -> int:
        """The descriptor that came with a message; each once, in their order. Raises OSError when
        there is none.
        """
        if not self._descriptors:
            raise OSError(errno.EBADF, "no descriptor came with the message")
        return self._descriptors.popleft()

    def send(self, **message: Any) -> None:
        """Sends a message; a daemon that is gone is no error here."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")


def die_with_parent(signum: int) -> None:
    """Asks the kernel to send `signum` when the daemon dies (prctl(2), PR_SET_PDEATHSIG; Linux).

    The setting is lost at a change of user, so it is made by the process itself, after that.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)


class DaemonWatch(threading.Thread):
    """Drains this worker when the daemon is gone, and ends it when draining takes too long.

    While the daemon lives, it bounds the drain itself, and its messages go to who has asked for
    them with `hand_to`.
    """

    def __init__(self, channel: Channel, drain: float) -> None:
        super().__init__(name="servd-daemon-watch", daemon=True)
        self.channel = channel
        self.drain = drain
        self._early: list[str] = []
        self._handler: Callable[[str], None] | None = None
        self._handing = threading.Lock()

    def hand_to(self, handler: Callable[[str], None]) -> None:
        """Every message, also those that have arrived before, goes to `handler`, in this
        thread or in the caller's.
        """
        with self._handing:
            self._handler = handler
            for message in self._early:
                handler(message)

    def run(self) -> None:
        """Waits for messages, and for the end of the channel."""
        die_with_parent(signal.SIGTERM)
        while (message := self.channel.receive()) is not None:
            with self._handing:
                if self._handler is None:
                    self._early.append(message)
                else:
                    with contextlib.suppress(RuntimeError):  # the loop is closed: the end is near
                        self._handler(message)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self.drain + HARD_EXIT_GRACE)
        os._exit(1)
