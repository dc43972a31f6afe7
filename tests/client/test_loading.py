"""`servd.loading`: what a worker says while it starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import servd
from servd.wire.names import NOTIFY_SOCKET, WORKER


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """The socket that a worker reports to."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(tmp_path / "notify"))
    sock.settimeout(0)
    monkeypatch.setenv(NOTIFY_SOCKET, str(tmp_path / "notify"))
    monkeypatch.setenv(WORKER, "0")
    return sock


@pytest.mark.parametrize(
    ("extend", "said"),
    [
        (None, ""),
        ("2m", "\nEXTEND_TIMEOUT_USEC=120000000"),
        (1.5, "\nEXTEND_TIMEOUT_USEC=1500000"),
        ("250 ms", "\nEXTEND_TIMEOUT_USEC=250000"),
    ],
)
def test_a_worker_says_how_far_it_is(
    daemon: socket.socket, extend: str | float | None, said: str
) -> None:
    with daemon:
        servd.loading("shard 1\n of 2", extend=extend)
        assert daemon.recv(4096).decode() == f"STATUS=shard 1 of 2{said}"


def test_nothing_is_said_outside_servd(
    daemon: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WORKER)
    with daemon:
        servd.loading("shard 1 of 2", extend="2m")
        with pytest.raises(BlockingIOError):
            daemon.recv(4096)


@pytest.mark.parametrize("extend", ["soon", "-1s", -1, "", "1 week"])
def test_what_is_no_duration_is_a_mistake_everywhere(extend: str | float) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        servd.loading("shard 1 of 2", extend=extend)
