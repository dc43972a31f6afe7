"""systemd's notification protocol (sd_notify(3)): datagrams of NAME=value lines."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence

from servd.wire.names import NOTIFY_SOCKET, WATCHDOG_PID, WATCHDOG_USEC

_sender: socket.socket | None = None
"""Kept open, so that a process without free descriptors can still notify."""


def notify(
    *lines: str, address: str | None = None, descriptors: Sequence[int] = (), wait: bool = True
) -> bool:
    """Sends `lines` and `descriptors` to `address`, else to the socket in NOTIFY_SOCKET. Returns
    whether they were sent: a missing receiver is no error. Without `wait`, neither is a full queue.
    """
    global _sender
    address = address or os.environ.get(NOTIFY_SOCKET)
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    flags = 0 if wait else socket.MSG_DONTWAIT
    try:
        if _sender is None:
            _sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        text = "\n".join(lines).encode()
        _sender.sendmsg([text], rights if descriptors else [], flags, address)
    except OSError:
        return False
    return True


def announce_watchdog(seconds: float | None) -> None:
    """Sets the variables of sd_watchdog_enabled(3), or removes them for None."""
    os.environ.pop(WATCHDOG_USEC, None)
    os.environ.pop(WATCHDOG_PID, None)
    if seconds is not None:
        interval = str(int(seconds * 1_000_000))
        os.environ.update({WATCHDOG_USEC: interval, WATCHDOG_PID: str(os.getpid())})


def parse_notification(datagram: bytes) -> dict[str, str]:
    """Returns the fields of a notification; lines without "=" are skipped."""
    text = datagram.decode("utf-8", errors="replace")
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, sign, value in pairs if sign and name}
