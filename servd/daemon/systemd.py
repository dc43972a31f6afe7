"""What the daemon tells systemd (sd_notify(3)); nothing where systemd did not start it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence

from servd.wire.names import FDSTORE, NOTIFY_SOCKET, WATCHDOG_PID, WATCHDOG_USEC
from servd.wire.notify import notify


class Systemd:
    """The service manager above us, if there is one.

    Takes its variables out of the environment, so that no worker takes them for its own; `environ`
    has them for a daemon that takes our place. While it is `mute` nothing is said: systemd hears
    the main process alone (NotifyAccess=main).
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
        """Seconds after which systemd ends a daemon that gives no sign of life; 0: never."""

    def _tell(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        if self.address and not self.mute:
            notify(*lines, address=self.address, descriptors=descriptors)

    def starting(self, status: str, seconds: float) -> None:
        """Says what is being waited for, and that it may take so long."""
        self._tell(f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def ready(self, status: str) -> None:
        """The start is over."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self, status: str) -> None:
        """A reload has begun. `ready` says that it is over (systemd 253 wants the time of the
        monotonic clock too: sd_notify(3), RELOADING=1).
        """
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={microseconds}", f"STATUS={status}")

    def replaced_by(self, pid: int) -> None:
        """The main process is another one; it says everything from now on."""
        self._tell(f"MAINPID={pid}")
        self.mute = True

    def goes_on(self) -> None:
        """The main process is this one after all."""
        self.mute = False
        self._tell(f"MAINPID={os.getpid()}")

    async def alive(self) -> None:
        """A sign of life: of the loop, since it is that which may hang."""
        self._tell("WATCHDOG=1")

    def store(self, name: str, sock: socket.socket) -> None:
        """Has a socket kept for the next start."""
        self._tell("FDSTORE=1", f"FDNAME={name}", descriptors=[sock.fileno()])

    def forget(self, name: str) -> None:
        """Has a socket kept no longer."""
        self._tell("FDSTOREREMOVE=1", f"FDNAME={name}")

    def status(self, status: str) -> None:
        """A line for `systemctl status`."""
        self._tell(f"STATUS={status}")

    def stopping(self, seconds: float) -> None:
        """The stop has begun, and may take so long."""
        self._tell("STOPPING=1", "STATUS=Draining", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")
