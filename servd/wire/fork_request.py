"""What the daemon and a template, which forks workers, say to each other: datagrams of JSON, some
with descriptors. Standard library only.
"""

from __future__ import annotations

import array
import json
import socket
from dataclasses import asdict
from typing import Any

from servd.core.quick_dataclass import dataclass

FORK, LOAD = "fork", "load"
"""What the daemon asks for: to fork a worker (`ForkRequest`, with `reply`, stdout, stderr, channel
and the worker's descriptors), and to load an app (`WorkerSpec`, with the pipe for its events).
"""

READY, LOADED = "ready", "loaded"
"""What a template says: its runtime is imported; an app is loaded, or cannot be."""

MAX_DESCRIPTORS = 200
"""Descriptors of one datagram (SCM_MAX_FD of Linux is 253)."""

MAX_BYTES = 192 * 1024
"""Length of a datagram (net.core.wmem_max of Linux is 208 KiB)."""


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """A process to fork: what `subprocess.Popen` gets for others. The daemon, `parent`, adopts it.
    `numbers` are those that the worker's spec gives to its descriptors. With `is_template` it forks
    workers itself: its channel is that of a template. `title` is what ps(1) shows.
    """

    parent: int
    title: str
    environment: dict[str, str]
    directory: str
    umask: int = -1
    uid: int | None = None
    gid: int | None = None
    groups: list[int] | None = None
    numbers: tuple[int, ...] = ()
    is_template: bool = False

    def to_json(self) -> str:
        """Returns the datagram's text."""
        return json.dumps({"do": FORK, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def read(cls, message: dict[str, Any]) -> ForkRequest:
        """Returns the request that `to_json` wrote."""
        fields = {name: value for name, value in message.items() if name != "do"}
        return cls(**{**fields, "numbers": tuple(fields["numbers"])})


def send(sock: socket.socket, text: str, descriptors: list[int] | None = None) -> None:
    """Sends a datagram. Raises OSError."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors or []))]
    sock.sendmsg([text.encode()], rights if descriptors else [])


def receive(sock: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Waits for a datagram; returns the message, None at the end, and its descriptors."""
    content, descriptors, _, _ = socket.recv_fds(
        sock, MAX_BYTES, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
    )
    return (json.loads(content) if content else None), descriptors
