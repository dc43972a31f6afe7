"""Faults of Circus 0.19, and what servd does instead. An entry can go once Circus is fixed."""

from __future__ import annotations

import importlib
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from servd.core.lean_import import stand_ins


@contextmanager
def without_name_lookup() -> Iterator[None]:
    """Fault: `Arbiter.__init__` calls `socket.getfqdn()`, which asks a name server and can delay
    the start by many seconds. Only ZeroMQ's cluster, which servd does not have, uses the name.
    """
    original = socket.getfqdn
    socket.getfqdn = _host_name
    try:
        yield
    finally:
        socket.getfqdn = original


def _host_name(name: str = "") -> str:
    return name or socket.gethostname()


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


def import_circus() -> None:
    """Fault: `import circus.arbiter` imports ZeroMQ, psutil, PyYAML, the commands of `circusctl`
    and the loaders of its plugins, whatever is used of them: servd uses none. They would take two
    thirds of the import's time and memory. All of them can still be imported later, as can modules
    of the standard library that it and Tornado import for functions that nobody calls here.
    """
    jsonapi = _module("zmq.utils.jsonapi")
    utils = _module("zmq.utils", jsonapi=jsonapi)
    # servd reaps processes itself, so that nothing of psutil is called
    errors: dict[str, Any] = {
        name: type(name, (Exception,), {})
        for name in ("NoSuchProcess", "AccessDenied", "TimeoutExpired")
    }
    words = {"STATUS_ZOMBIE": "zombie", "STATUS_DEAD": "dead"}
    absent = [
        _module("zmq", utils=utils, ssh=None),
        utils,
        jsonapi,
        _module("circus.controller", Controller=NoController),
        _module("circus.plugins", get_plugin_cmd=None),
        _module("psutil", Popen=None, Process=None, **errors, **words),
        *map(_module, ("html", "logging.config", "logging.handlers")),
    ]
    with stand_ins({"yaml": None, **{module.__name__: module for module in absent}}):
        importlib.import_module("circus.arbiter")


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    return module


import_circus()
