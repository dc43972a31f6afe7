"""Faults of Circus 0.19, and what servd does instead. An entry can go once Circus is fixed."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import circus.arbiter


@contextmanager
def without_name_lookup() -> Iterator[None]:
    """Fault: `Arbiter.__init__` calls `socket.getfqdn()`, which asks a name server and can delay
    the start by many seconds. Only ZeroMQ's cluster, which servd does not have, uses the name.
    """
    original = circus.arbiter.socket.getfqdn
    circus.arbiter.socket.getfqdn = socket.gethostname
    try:
        yield
    finally:
        circus.arbiter.socket.getfqdn = original


class NoController:
    """Fault: Circus's controller opens ZeroMQ endpoints without authentication, through which
    anyone who reaches them can add a watcher, that is, run any command. Its `SysHandler` takes the
    signals HUP, QUIT, INT, TERM and WINCH, with an ungated reload on HUP. This one opens no socket,
    takes no signal and times no check (the supervisor has its own).
    """

    endpoint_owner_mode = False

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""


def quiet_logging() -> None:
    """Fault: `import circus` calls `logging.basicConfig()`, which adds a stderr handler to the root
    logger of the importing program. Circus also logs each step of every watcher; servd has events.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
    logging.getLogger("circus").setLevel(logging.CRITICAL)
