"""Both ends of an upgrade in one process: what a daemon and the next one say to each other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

from servd.core.handed_socket import HandedSocket
from servd.daemon.upgrade.message import LONGEST_LINE_BYTES
from servd.daemon.upgrade.new_daemon import NewDaemon
from servd.daemon.upgrade.old_daemon import OldDaemon
from servd.daemon.upgrade.state import OverrideRecord, UpgradeState
from servd.supervisor.apply.inherit import InheritedService


def upgrade_state(**changes: Any) -> UpgradeState:
    """What a daemon leaves that uses everything."""
    fields: dict[str, Any] = {
        "pid": 7,
        "version": "1",
        "runtime_dir": "/run/x",
        "runtime_dir_setting": "",
        "lock": 3,
        "made": ["/run/x"],
        "sockets": [HandedSocket("127.0.0.1|80", 4), HandedSocket("unix:/w", 5, "/w", (1, 2))],
        "admin": [HandedSocket("unix:/a", 6, "/a", (3, 4))],
        "inherited": {"web": [8, 9]},
        "chosen": {":0#web": 4321},
        "stored": {"127.0.0.1|80": "servd-0"},
        "ports": {"own": 1234},
        "generation": 5,
        "digest": "abc",
        "numbers": {"web": 3},
        "services": {
            "web": InheritedService(True, "none", "", ("127.0.0.1|80",), ("127.0.0.1:81",)),
            "job": InheritedService(False, completed="mark"),
        },
        "by_hand": {"web": OverrideRecord(4, False, 2)},
    }
    return UpgradeState(**{**fields, **changes})


class FakeProcess:
    """The process of the new daemon: `status` is None while it runs."""

    pid = 99

    def __init__(self) -> None:
        self.status: int | None = None
        self.signals: list[int] = []
        self.heeds_signals = True

    def poll(self) -> int | None:
        return self.status

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        if self.heeds_signals:
            self.status = -number

    def kill(self) -> None:
        self.signals.append(signal.SIGKILL)
        self.status = -signal.SIGKILL


class TwoDaemons:
    """The `new` one as the old sees it, and the `old` one as the new sees it."""

    def __init__(self, new: NewDaemon, old: OldDaemon, process: FakeProcess) -> None:
        self.new = new
        self.old = old
        self.process = process
        self.reloads: list[str] = []

    def listen(self) -> None:
        self.old.listen(lambda: self.reloads.append("reload"))


@contextlib.asynccontextmanager
async def two_daemons() -> AsyncIterator[TwoDaemons]:
    """Both, connected."""
    ours, theirs = socket.socketpair()
    process = FakeProcess()
    streams = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_LINE_BYTES)
    with theirs:
        old = OldDaemon(theirs, upgrade_state())
        yield TwoDaemons(NewDaemon(cast("Any", process), *streams), old, process)
        streams[1].close()
        if old._listening is not None:
            await asyncio.wait({old._listening})


@contextlib.asynccontextmanager
async def new_daemon() -> AsyncIterator[tuple[NewDaemon, FakeProcess, socket.socket]]:
    """A new daemon that says whatever the test sends from its end."""
    ours, theirs = socket.socketpair()
    process = FakeProcess()
    streams = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_LINE_BYTES)
    with theirs:
        theirs.setblocking(False)
        yield NewDaemon(cast("Any", process), *streams), process, theirs
        streams[1].close()


def said(channel: socket.socket) -> list[Any]:
    """Everything that has arrived at an end by now."""
    with contextlib.suppress(BlockingIOError):
        return [json.loads(line) for line in channel.recv(1 << 20).splitlines()]
    return []
