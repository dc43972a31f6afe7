"""Names are looked up without taking the threads that the daemon needs."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from servd.supervisor.health.resolver import addresses_of

from support.in_loop import in_loop


class SlowNames:
    """Answers once it is let go; counts who asked."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        self.let_go.wait()
        if host == "gone":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, 0, 0, "", ("10.0.0.7", 0))] * 2


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> SlowNames:
    names = SlowNames()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


async def give_up(host: str) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await addresses_of(host)


@in_loop
async def test_a_lookup_that_hangs_is_one_however_often_it_is_given_up(names: SlowNames) -> None:
    for _ in range(20):
        await give_up("slow")
    assert names.asked == ["slow"]
    assert await asyncio.to_thread(lambda: "the loop's threads are free") != ""
    waiting = asyncio.ensure_future(addresses_of("slow"))
    await asyncio.sleep(0)
    names.let_go.set()
    assert await waiting == ["10.0.0.7"]


@in_loop
async def test_an_unknown_name_is_an_error_and_asked_again(names: SlowNames) -> None:
    await give_up("gone")
    names.let_go.set()
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await addresses_of("gone")
    assert len(names.asked) <= 3


@in_loop
async def test_an_address_is_not_looked_up(names: SlowNames) -> None:
    assert await addresses_of("::1") == ["::1"]
    assert await addresses_of("127.0.0.1") == ["127.0.0.1"]
    assert names.asked == []
