"""Workers without their daemon: waited for, then ended; and the dead that nobody reaps."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from servd.daemon import orphans
from servd.daemon.orphans import OrphanCleaner, ZombieReaper
from servd.plan.model import Plan

from support.config_texts import plan_text
from support.in_loop import in_loop, settle


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_POLL_SECONDS", 0.001)


class Orphan:
    """A worker that a killed daemon has left."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.lives = True

    def ask_rest(self) -> bool:
        return self.lives

    def kill(self) -> None:
        self.lives = False


def held(sock: socket.socket, more: str = "") -> Plan:
    """A plan whose service wants the address of a socket that is bound."""
    return plan_text(
        f"""
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:{sock.getsockname()[1]}"
        timeouts.drain = 0
        {more}
        """
    )


def cleaner(left: list[Orphan], plan: Plan) -> OrphanCleaner:
    return OrphanCleaner(cast("Any", left), plan)


@in_loop
async def test_without_orphans_nothing_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, capture_logs() as logs:
        clean = cleaner([], held(sock))
        await clean.wait_for_addresses()
        await clean.stop()
    assert logs == []


@in_loop
async def test_orphans_that_hold_no_address_drain_in_the_background() -> None:
    left = [Orphan(2), Orphan(1)]
    with capture_logs() as logs:
        clean = cleaner(left, Plan())
        await clean.wait_for_addresses()
        assert [orphan.lives for orphan in left] == [True, True]
        for orphan in left:
            orphan.lives = False
        assert clean._task is not None
        await clean._task
    assert [(entry["event"], entry.get("pids")) for entry in logs] == [
        ("orphaned workers draining", [1, 2]),
        ("orphaned workers exited", None),
    ]


@in_loop
async def test_an_address_that_is_held_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        clean = cleaner([Orphan(1)], held(sock))
        making = asyncio.ensure_future(clean.wait_for_addresses())
        await asyncio.sleep(0.02)
        assert not making.done()
    await making
    await clean.stop()


@in_loop
async def test_an_address_is_waited_for_no_longer_than_orphans_are_there() -> None:
    left = [Orphan(1)]
    with socket.create_server(("127.0.0.1", 0)) as sock:
        clean = cleaner(left, held(sock))
        making = asyncio.ensure_future(clean.wait_for_addresses())
        await asyncio.sleep(0.01)
        assert not making.done()
        left[0].lives = False
        await making


@in_loop
async def test_an_address_that_stays_held_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orphans, "_ADDRESS_SECONDS", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        clean = cleaner([Orphan(1)], held(sock))
        await clean.wait_for_addresses()
        await clean.stop()


@in_loop
async def test_an_orphan_that_drains_too_long_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "ORPHAN_SECONDS", 0.02)
    ends, stays = Orphan(1), Orphan(2)
    with capture_logs() as logs:
        clean = cleaner([ends, stays], Plan())
        await clean.wait_for_addresses()
        ends.lives = False
        assert clean._task is not None
        await clean._task
    assert not stays.lives
    assert [entry["pids"] for entry in logs if entry["log_level"] == "warning"] == [[1, 2], [2]]


@in_loop
async def test_orphans_end_with_the_daemon() -> None:
    left = [Orphan(1), Orphan(2)]
    clean = cleaner(left, Plan())
    await clean.wait_for_addresses()
    await clean.stop()
    await settle()
    assert [orphan.lives for orphan in left] == [False, False]


def test_children_are_looked_at_only_when_one_has_ended() -> None:
    script = """
import os, subprocess
from servd.daemon.orphans import _children
lives, ends = subprocess.Popen(["sleep", "1000"]), subprocess.Popen(["sleep", "1000"])
assert _children() == []
ends.kill()
os.waitid(os.P_PID, ends.pid, os.WEXITED | os.WNOWAIT)
assert set(_children()) == {lives.pid, ends.pid}
ends.wait()
assert _children() == []
lives.kill()
lives.wait()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@in_loop
async def test_only_what_is_dead_for_some_looks_is_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    children: dict[int, bool] = {1: False, 2: True, 3: True, 4: True}
    reaped: list[int] = []
    monkeypatch.setattr(orphans, "_children", lambda: list(children))
    monkeypatch.setattr(orphans, "is_dead", lambda pid: children[pid])
    monkeypatch.setattr("os.waitpid", lambda pid, _: reaped.append(pid))
    monkeypatch.setattr(orphans, "_LOOKS", 1)
    reaper = ZombieReaper(lambda pid: pid == 4)
    reaper.look()
    assert reaped == []
    del children[3]  # reaped by who had started it
    children[1] = True
    reaper.look()
    assert reaped == [2]
    del children[2]
    reaper.look()
    assert reaped == [2, 1]
