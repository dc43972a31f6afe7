"""Binding: families, ports, unix sockets and their files."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from servd.core.address import parse_address
from servd.core.errors import StartError
from servd.plan.model import SocketPlan
from servd.supervisor.sockets.pool import SocketPool


def plan(address: str, mode: int = 0o600) -> SocketPlan:
    return SocketPlan(parse_address(address), "web", 16, mode=mode)


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose sockets have short relative paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_listener_is_tcp_as_asyncio_recognises_it_with_nodelay() -> None:
    pool = SocketPool()
    (sock,) = pool.acquire(plan("127.0.0.1:0")).sockets
    assert sock.proto == socket.IPPROTO_TCP
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert not sock.get_inheritable()
    pool.close()


def test_every_interface_is_both_families_on_one_port() -> None:
    pool = SocketPool()
    listener = pool.acquire(plan(":0"))
    families = {sock.family for sock in listener.sockets}
    assert socket.AF_INET in families
    assert {sock.getsockname()[1] for sock in listener.sockets} == {listener.port}
    if socket.AF_INET6 in families:
        six = next(s for s in listener.sockets if s.family == socket.AF_INET6)
        assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    pool.close()


def test_one_address_is_bound_once_and_closed_by_its_last_user() -> None:
    pool = SocketPool()
    first = pool.acquire(plan("127.0.0.1:0"))
    second = pool.acquire(plan("127.0.0.1:0"))
    (sock,) = first.sockets
    assert second.sockets == [sock]
    pool.release(first)
    assert sock.fileno() >= 0
    pool.release(second)
    assert sock.fileno() == -1
    assert pool.bound == {}


def test_a_busy_port_is_said_to_be_busy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            StartError, match=f"cannot listen on 127.0.0.1:{port}: the address is in"
        ):
            SocketPool().acquire(plan(f"127.0.0.1:{port}"))


def test_an_address_of_another_machine_is_said_to_be_one() -> None:
    with pytest.raises(StartError, match="no interface of this machine has that address"):
        SocketPool().acquire(plan("192.0.2.1:0"))


def test_a_unix_socket_has_its_mode_and_goes_with_its_user(short: Path) -> None:
    pool = SocketPool()
    listener = pool.acquire(plan("unix:web.sock", mode=0o640))
    assert stat.S_IMODE((short / "web.sock").stat().st_mode) == 0o640
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("web.sock")
    pool.release(listener)
    assert list(short.iterdir()) == []


def test_the_socket_of_a_dead_process_gives_way(short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind("web.sock")
    left = (short / "web.sock").stat().st_ino
    pool = SocketPool()
    listener = pool.acquire(plan("unix:web.sock"))
    assert (short / "web.sock").stat().st_ino != left
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("web.sock")
        listener.sockets[0].accept()[0].close()
    pool.close()
    assert list(short.iterdir()) == []


def test_the_socket_of_a_living_process_does_not_give_way(short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as living:
        living.bind("web.sock")
        living.listen()
        with pytest.raises(StartError, match="in use by another process"):
            SocketPool().acquire(plan("unix:web.sock"))


def test_a_file_that_is_no_socket_is_never_removed(short: Path) -> None:
    (short / "web.sock").write_text("precious")
    with pytest.raises(StartError, match="is not a socket"):
        SocketPool().acquire(plan("unix:web.sock"))
    assert (short / "web.sock").read_text() == "precious"


def test_a_socket_that_was_replaced_by_another_is_not_removed(short: Path) -> None:
    pool = SocketPool()
    pool.acquire(plan("unix:web.sock"))
    os.unlink("web.sock")
    (short / "web.sock").write_text("somebody else's")
    pool.close()
    assert (short / "web.sock").exists()


def test_an_inherited_socket_is_found_by_its_name() -> None:
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        pool = SocketPool({"web": [given.fileno()]})
        listener = pool.acquire(plan("fd:web"))
        assert listener.port == given.getsockname()[1]
        with socket.create_connection(given.getsockname()):
            pass
        with pytest.raises(StartError, match=r"no inherited socket is named other .*: web"):
            pool.acquire(plan("fd:other"))
        pool.close()


def test_an_address_that_goes_can_be_taken_again_at_once(short: Path) -> None:
    """While the old socket is being emptied, the new one is another that accepts."""

    async def main(address: str) -> None:
        pool = SocketPool()
        old = pool.acquire(plan(address))
        for item in pool.detach([old]):
            await item.empty()
        new = pool.acquire(plan(address))
        assert new.sockets[0] is not old.sockets[0]
        pool.release(old)
        with socket.socket(new.sockets[0].family) as client:
            client.settimeout(90)
            client.connect("web.sock" if "unix" in address else new.sockets[0].getsockname())
        pool.close()

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for address in (f"127.0.0.1:{port}", "unix:web.sock"):
        asyncio.run(main(address))
