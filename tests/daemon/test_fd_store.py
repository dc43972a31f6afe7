"""What systemd is given to keep, and what is made of what it gives back."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from servd.core.address import Address
from servd.daemon.fd_store import FdStore
from servd.daemon.systemd import Systemd
from servd.plan.model import SocketPlan
from servd.supervisor.sockets.pool import SocketPool
from servd.wire.notify import parse_notification


class Manager:
    """The other end of the notification socket: keeps what it is given, as systemd does."""

    def __init__(self, path: Path) -> None:
        self.kept: dict[str, list[int]] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def hear(self) -> dict[str, list[int]]:
        """What is kept, once everything was heard that was said."""
        while True:
            try:
                text, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 8)
            except BlockingIOError:
                return self.kept
            fields = parse_notification(text)
            if "FDSTORE" in fields:
                assert fields["FDNAME"].isprintable()
                assert ":" not in fields["FDNAME"]
                self.kept.setdefault(fields["FDNAME"], []).extend(descriptors)
            elif "FDSTOREREMOVE" in fields:
                self.forget(fields["FDNAME"])

    def forget(self, name: str) -> None:
        for descriptor in self.kept.pop(name, []):
            os.close(descriptor)

    def given_back(self) -> dict[str, list[int]]:
        """Copies of what is kept, as a process is started with them."""
        return {name: [os.dup(fd) for fd in fds] for name, fds in self.hear().items()}

    def close(self) -> None:
        for name in list(self.kept):
            self.forget(name)
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("FDSTORE", "3")
    yield manager
    manager.close()


@pytest.fixture
def systemd(manager: Manager) -> Systemd:
    return Systemd()


def tcp(port: int = 0) -> SocketPlan:
    return SocketPlan(Address("tcp", "127.0.0.1", port), "web", 16)


def unix(path: Path) -> SocketPlan:
    return SocketPlan(Address("unix", path=str(path)), "web", 16)


def test_a_socket_that_is_given_back_is_the_one_that_is_used(
    manager: Manager, systemd: Systemd, tmp_path: Path
) -> None:
    pool, store = SocketPool(), FdStore(systemd)
    port = pool.acquire(tcp()).port
    pool.acquire(unix(tmp_path / "web.sock"))
    store.update(pool)
    store.update(pool)  # nothing is said twice
    assert [len(descriptors) for descriptors in manager.hear().values()] == [1, 1]
    pool.hand_over(store.stored)
    pool.close()
    waiting = socket.create_connection(("127.0.0.1", port))  # nobody is there, nobody is refused
    beside = socket.socket(socket.AF_UNIX)
    beside.connect(str(tmp_path / "web.sock"))

    inherited = {**manager.given_back(), "other": [99]}
    pool, store = SocketPool(), FdStore(systemd)
    store.adopt(inherited, pool)
    assert inherited == {"other": [99]}
    for listener, client in (
        (pool.acquire(tcp(port)), waiting),
        (pool.acquire(unix(tmp_path / "web.sock")), beside),
    ):
        (sock,) = listener.sockets
        sock.accept()[0].close()
        client.close()
    pool.claim_all()
    store.update(pool)
    assert len(manager.hear()) == 2
    pool.close()
    assert not (tmp_path / "web.sock").exists()


def test_what_nobody_wants_any_more_is_given_up(manager: Manager, systemd: Systemd) -> None:
    pool, store = SocketPool(), FdStore(systemd)
    port = pool.acquire(tcp()).port
    pool.acquire(replace(tcp(), name="other"))
    store.update(pool)
    assert len(manager.hear()) == 2
    pool.hand_over(store.stored)
    pool.close()
    pool, store = SocketPool(), FdStore(systemd)
    store.adopt(manager.given_back(), pool)
    listener = pool.acquire(tcp(port))
    pool.claim_all()
    store.update(pool)
    assert len(manager.hear()) == 1
    pool.release(listener)
    store.update(pool)
    assert manager.hear() == {}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_unix_socket_whose_file_is_gone_is_bound_anew(
    manager: Manager, systemd: Systemd, tmp_path: Path
) -> None:
    path = tmp_path / "web.sock"
    pool, store = SocketPool(), FdStore(systemd)
    pool.acquire(unix(path))
    store.update(pool)
    pool.hand_over(store.stored)
    pool.close()
    path.unlink()
    pool, store = SocketPool(), FdStore(systemd)
    store.adopt(manager.given_back(), pool)
    listener = pool.acquire(unix(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        (sock,) = listener.sockets
        sock.accept()[0].close()
    store.update(pool)
    (name,) = manager.hear()
    assert name.endswith(f";{path.stat().st_dev};{path.stat().st_ino}")
    pool.close()


def test_no_more_is_stored_than_there_is_room_for(manager: Manager, systemd: Systemd) -> None:
    pool, store = SocketPool(), FdStore(systemd)
    for index in range(5):
        pool.acquire(replace(tcp(), name=str(index)))
    store.update(pool)
    assert len(manager.hear()) == len(store.stored) == 3
    pool.close()


def test_nothing_is_stored_where_the_unit_does_not_allow_it(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FDSTORE")
    pool, store = SocketPool(), FdStore(Systemd())
    pool.acquire(tcp())
    store.update(pool)
    assert manager.hear() == {}
    assert store.stored == {}
    pool.close()
