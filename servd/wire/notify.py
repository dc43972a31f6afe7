"""systemd's notification protocol (sd_notify(3)): datagrams of NAME=value lines."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from servd.wire.names import NOTIFY_SOCKET, WATCHDOG_PID, WATCHDOG_USEC


def notify(*lines: str, address: str | None = None, descriptors: Sequence[int] = ()) -> bool:
    """Sends `lines` to `address`, or to the socket that the environment names, with `descriptors`.

    Returns whether there was one. A receiver that is gone or full is not an error: notifications
    are advice.
    """
    address = address or os.environ.get(NOTIFY_SOCKET)
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.connect(address)
            socket.send_fds(sender, ["\n".join(lines).encode()], descriptors)
        except OSError:
            return False
    return True


def announce_watchdog(seconds: float | None) -> None:
    """Tells the code of this process that WATCHDOG=1 is expected of it, by its pid, or that nothing
    is (sd_watchdog_enabled(3)).
    """
    if seconds is not None:
        os.environ[WATCHDOG_USEC] = str(int(seconds * 1_000_000))
        os.environ[WATCHDOG_PID] = str(os.getpid())
    else:
        os.environ.pop(WATCHDOG_USEC, None)
        os.environ.pop(WATCHDOG_PID, None)


def parse(datagram: bytes) -> dict[str, str]:
    """The fields of a notification; lines without "=" are skipped."""
    text = datagram.decode("utf-8", errors="replace")
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, sign, value in pairs if sign and name}
