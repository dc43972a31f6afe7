"""Every place where Circus 0.19 does what a daemon of ours must not do, and what is done instead.

Each entry names the fault; when Circus mends it, the entry can go.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import circus.arbiter


@contextmanager
def without_name_lookup() -> Iterator[None]:
    """Fault: `Arbiter.__init__` calls `socket.getfqdn()`, which asks a name server and can hold the
    start up for many seconds. The name is used for ZeroMQ's cluster only, which servd has not.
    """
    original = circus.arbiter.socket.getfqdn
    circus.arbiter.socket.getfqdn = socket.gethostname
    try:
        yield
    finally:
        circus.arbiter.socket.getfqdn = original


class NoController:
    """Fault: Circus's controller opens ZeroMQ endpoints without authentication, on which anyone who
    reaches them may add a watcher, that is run any command; and its `SysHandler` takes the signals
    HUP, QUIT, INT, TERM and WINCH for itself, with an ungated reload on HUP.

    This stands in its place: no socket exists, no signal is taken, no check is timed (the
    supervisor has its own).
    """

    endpoint_owner_mode = False

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""


def quiet_logging() -> None:
    """Fault: `import circus` calls `logging.basicConfig()`, which puts a handler for stderr on the
    root logger of whoever imports it. It also logs each step of every watcher; ours are events.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
    logging.getLogger("circus").setLevel(logging.CRITICAL)
