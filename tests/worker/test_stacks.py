"""An app that does not start, or does not end, is shown where it is."""

from __future__ import annotations

import asyncio
import threading
import time

from servd.worker.stacks import stacks

from support.harness import Servd, wait_until

IMPORTING = """
import time

def read_model():
    time.sleep(1000)

read_model()
"""
HOLDING = """
import ctypes

def hold_the_interpreter():
    ctypes.PyDLL(None).sleep(1000)

hold_the_interpreter()
"""
LIFESPAN = """
import asyncio, contextlib, time
from fastapi import FastAPI

async def connect():
    await asyncio.Event().wait()

@contextlib.asynccontextmanager
async def lifespan(app):
    await {wait}
    yield

app = FastAPI(lifespan=lifespan)
"""
CONFIG = """
[defaults]
timeouts = { startup = "5s" }
restart = { policy = "never" }
[services.importing]
app = "importing:app"
[services.holding]
app = "holding:app"
[services.awaiting]
app = "awaiting:app"
[services.threading]
app = "in_a_thread:app"
"""


def test_an_app_that_does_not_start_is_shown_where_it_is(servd: Servd) -> None:
    daemon = servd(
        CONFIG,
        importing_py=IMPORTING,
        holding_py=HOLDING,
        awaiting_py=LIFESPAN.format(wait="connect()"),
        in_a_thread_py=LIFESPAN.format(wait="asyncio.to_thread(time.sleep, 1000)"),
    )
    for name, frame in (
        ("importing", "in read_model"),
        ("holding", "in hold_the_interpreter"),
        ("awaiting", "in connect"),
        ("threading", "in lifespan"),
    ):
        failed = daemon.wait_for("service cannot start", service=name)
        assert "was not ready within 5 s (timeouts.startup)" in failed["error"]
        assert any(frame in line for line in failed["last_lines"]), failed
    assert daemon.stop() == 0


LINGERING = """
import threading, time
from fastapi import FastAPI
app = FastAPI()

def poll_for_ever():
    while True:
        time.sleep(0.1)

threading.Thread(target=poll_for_ever, name="poller").start()
"""
ENDLESS = """
import contextlib, time
from fastapi import FastAPI

def flush():
    time.sleep(1000)

@contextlib.asynccontextmanager
async def lifespan(app):
    yield
    flush()

app = FastAPI(lifespan=lifespan)
"""


def test_what_keeps_a_worker_from_ending_is_named(servd: Servd) -> None:
    daemon = servd(
        """
        [defaults]
        timeouts = { drain = "1s", shutdown = "1s" }
        [services.lingering]
        app = "lingering:app"
        [services.endless]
        app = "endless:app"
        """,
        lingering_py=LINGERING,
        endless_py=ENDLESS,
    ).ready()
    assert daemon.stop() == 0
    (lingering,) = daemon.find("worker still running after its drain", service="lingering")
    assert lingering["threads"] == ["poller"]
    assert "in poll_for_ever" in lingering["exception"]
    (endless,) = daemon.find("worker still running after its drain", service="endless")
    assert "in flush" in endless["exception"]
    assert len(daemon.find("worker killed")) == 2


def test_what_only_waits_for_work_is_not_shown() -> None:
    async def wait_for_news() -> None:
        await asyncio.Event().wait()

    async def look() -> str:
        await asyncio.to_thread(time.sleep, 0)  # its thread waits for more
        task = asyncio.create_task(wait_for_news(), name="news")
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()

        def shown_while_it_waits() -> str | None:
            shown = stacks(loop)
            return shown if "thread loop:" not in shown else None

        shown = await asyncio.to_thread(wait_until, shown_while_it_waits, "the loop waits")
        task.cancel()
        return str(shown)

    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(look())), name="loop")
    thread.start()
    thread.join()
    assert "task news:" in found[0]
    assert "in wait_for_news" in found[0]
    assert "thread loop:" not in found[0]
    assert "thread asyncio_" not in found[0]
