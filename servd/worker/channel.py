"""The worker's end of its private channel to the daemon, which ends with the daemon. A thread waits
for that, as a blocked event loop cannot, and enforces the hard deadline of the drain.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from servd.core.parent_death import die_with_parent
from servd.wire.graces import HARD_EXIT_SECONDS
from servd.wire.listen_fds import first_free_fd
from servd.wire.names import SHOW_STACKS

if TYPE_CHECKING:
    import asyncio

_MESSAGE_BYTES = 65536
_MAX_DESCRIPTORS = 16


class Channel:
    """Exchanges messages with the daemon, each one line of JSON."""

    def __init__(self, descriptor: int) -> None:
        # the listening sockets move to 3, 4, ...
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, first_free_fd())
        os.close(descriptor)
        self._socket = socket.socket(fileno=moved)
        self._buffer = b""
        self._descriptors: collections.deque[int] = collections.deque()
        self._sending = threading.Lock()

    def receive(self) -> str | None:
        """Waits for the next message; returns None when the daemon is gone."""
        while b"\n" not in self._buffer:
            try:
                chunk, descriptors, _, _ = socket.recv_fds(
                    self._socket, _MESSAGE_BYTES, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
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
        """Returns the next descriptor that came with a message. Raises OSError if there is none."""
        if not self._descriptors:
            raise OSError(errno.EBADF, "no descriptor came with the message")
        return self._descriptors.popleft()

    def send(self, **message: Any) -> None:
        """Sends a message; does nothing when the daemon is gone."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")


def kill_group() -> None:
    """Kills this process and everything that it has started: nothing else will."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


class DaemonWatch(threading.Thread):
    """Drains this worker when the daemon is gone, and ends it when that takes over `seconds`.
    Messages of a living daemon, which bounds the drain, go to `hand_to`'s handler, but the question
    where a worker is: `explain` says it, which a busy loop cannot.
    """

    def __init__(self, channel: Channel, seconds: float) -> None:
        super().__init__(name="servd-daemon-watch", daemon=True)
        self.channel = channel
        self.seconds = seconds
        self.daemon_is_gone = False
        self._early: list[str] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.explain: Callable[[], object] = lambda: None
        self._handler: Callable[[str], object] | None = None
        self._handing = threading.Lock()

    def hand_to(self, handler: Callable[[str], object]) -> None:
        """Passes every message, also earlier ones, to `handler`, in this or the caller's thread."""
        with self._handing:
            self._handler = handler
            for message in self._early:
                handler(message)

    def run(self) -> None:
        """Receives messages until the channel ends."""
        die_with_parent(signal.SIGTERM)
        while (message := self.channel.receive()) is not None:
            request = json.loads(message)
            if request["do"] == SHOW_STACKS:
                self.explain()
                self.channel.send(answer=request["ask"])
                continue
            with self._handing:
                if self._handler is None:
                    self._early.append(message)
                else:
                    with contextlib.suppress(RuntimeError):  # the loop is closed: we are exiting
                        self._handler(message)
        self.daemon_is_gone = True
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self.seconds + HARD_EXIT_SECONDS)
        kill_group()
