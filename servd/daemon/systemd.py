"""Notifies systemd (sd_notify(3)), if systemd started the daemon."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence

from servd.wire.names import FDSTORE, NOTIFY_SOCKET, WATCHDOG_PID, WATCHDOG_USEC
from servd.wire.notify import notify

_PATIENCE_SECONDS = 60.0
"""What systemd is asked for at a time: a daemon that hangs is not waited for any longer."""


class Systemd:
    """The service manager, if there is one. Removes its variables from the environment, so that no
    worker uses them; `environ` keeps them for a new daemon. Sends nothing while `mute`: systemd
    listens to the main process only (NotifyAccess=main).
    """

    def __init__(self, *, mute: bool = False) -> None:
        wanted = (NOTIFY_SOCKET, WATCHDOG_USEC, FDSTORE)
        self.environ = {name: os.environ[name] for name in wanted if name in os.environ}
        self.mute = mute
        self.address = os.environ.pop(NOTIFY_SOCKET, None)
        os.environ.pop(FDSTORE, None)
        microseconds = os.environ.pop(WATCHDOG_USEC, "")
        of_us = os.environ.pop(WATCHDOG_PID, str(os.getpid())) == str(os.getpid())
        self.watchdog = int(microseconds) / 1e6 if microseconds.isdecimal() and of_us else 0.0
        """Seconds without a sign of life after which systemd ends the daemon; 0: never."""

    def _tell(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        if self.address and not self.mute:
            notify(*lines, address=self.address, descriptors=descriptors)

    async def starting(self, status: str, progress: Callable[[], str]) -> None:
        """Reports the start, and asks for patience until it is cancelled: nobody knows before how
        long a start takes that may be extended.
        """
        while True:
            self._tell(f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(_PATIENCE_SECONDS * 1e6)}")
            await asyncio.sleep(_PATIENCE_SECONDS / 6)
            status = f"Starting: {progress()}"

    def ready(self, status: str) -> None:
        """Reports that the start, or a reload, is over."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self, status: str) -> None:
        """Starts a reload, which `ready` ends (systemd 253 needs the time: sd_notify(3))."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={microseconds}", f"STATUS={status}")

    def replaced_by(self, pid: int) -> None:
        """Names another main process, which reports from now on."""
        self._tell(f"MAINPID={pid}")
        self.mute = True

    def continues(self) -> None:
        """Names this process as the main one again."""
        self.mute = False
        self._tell(f"MAINPID={os.getpid()}")

    def alive(self) -> None:
        """Reports that the loop is alive, for the watchdog."""
        self._tell("WATCHDOG=1")

    def store(self, name: str, sock: socket.socket) -> None:
        """Stores a socket for the next start."""
        self._tell("FDSTORE=1", f"FDNAME={name}", descriptors=[sock.fileno()])

    def forget(self, name: str) -> None:
        """Removes a socket from the store."""
        self._tell("FDSTOREREMOVE=1", f"FDNAME={name}")

    def stopping(self, seconds: float) -> None:
        """Reports the stop, and asks for `seconds` of patience."""
        self._tell("STOPPING=1", "STATUS=Draining", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")
