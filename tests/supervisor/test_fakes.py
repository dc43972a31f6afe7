"""The virtual clock and the fake workers themselves: a test that they deceive proves nothing."""

from __future__ import annotations

import asyncio
import time

import pytest

from servd.core.events import Event

from support.fake_worker import Fakes, Fleet
from support.virtual_time import now, run, virtual_time

APP = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n'


def test_an_hour_passes_at_once_and_timers_fire_in_their_order() -> None:
    fired: list[float] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        for seconds in (3600.0, 0.5, 60.0):
            loop.call_later(seconds, lambda: fired.append(now()))
        await asyncio.sleep(3601.0)

    began = time.monotonic()
    run(work())
    assert fired == [0.5, 60.0, 3600.0]
    assert time.monotonic() - began < 5.0


def test_a_wait_for_what_never_comes_fails() -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match="no timer is set"):
        run(work())


def test_an_endless_repetition_fails() -> None:
    async def work() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(60.0)

    with pytest.raises(AssertionError, match="waits for what never comes"):
        run(work())


def test_an_exception_in_a_callback_fails_the_test() -> None:
    async def work() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(1.0)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run(work())


@virtual_time
async def test_real_sockets_work_on_the_virtual_clock(fakes: Fakes) -> None:
    """Those of services are real: what arrives is heard before the clock jumps."""
    fleet = Fleet(fakes)
    await fleet.start(APP)
    (item,) = fleet.context.pool.bound.values()
    reader, writer = await asyncio.open_connection("127.0.0.1", item.port)
    accepted, _ = item.sock.accept()
    with accepted:
        accepted.send(b"heard\n")
        assert await reader.readline() == b"heard\n"
    writer.close()
    await writer.wait_closed()


@virtual_time
async def test_a_death_is_reaped_as_by_a_signal(fakes: Fakes) -> None:
    await Fleet(fakes).start(APP)
    worker = fakes.of("web")[0]
    worker.die(3)
    assert worker.is_alive()  # until it is reaped
    await asyncio.sleep(0.1)
    assert not worker.is_alive()
    (died,) = fakes.logged(Event.WORKER_DIED)
    assert died["exit_status"] == 3
