"""systemd's patience during a start."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from servd.daemon.systemd import Systemd

from support.virtual_time import virtual_time


def test_systemd_is_asked_for_time_until_the_start_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time for longer than until the next."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)

        @virtual_time
        async def start() -> None:
            asking = asyncio.ensure_future(Systemd().starting("Starting", lambda: "1 of 2"))
            await asyncio.sleep(25)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking

        start()
        told = [manager.recv(4096).decode() for _ in range(3)]
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
    assert [text.splitlines()[0] for text in told] == ["STATUS=Starting"] + [
        "STATUS=Starting: 1 of 2"
    ] * 2
    assert all("EXTEND_TIMEOUT_USEC=60000000" in text for text in told)
