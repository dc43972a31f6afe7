"""A reload and a file watch tell one story about an edit, whoever was first."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import psutil
import pytest

from servd.core.errors import StartError
from servd.daemon.reload.request import ReloadReport, ReloadRequest

from support.apps import HOLD, PLAIN, plain, web
from support.harness import Servd, ServdProcess, wait_until
from support.in_loop import in_loop
from support.reload_fakes import ROLL, FakeRoom

WATCH = ReloadRequest("a file changed")


def asked(**options: Any) -> ReloadRequest:
    return ReloadRequest("the admin API", wants_report=True, **options)


async def reloaded(room: FakeRoom, request: ReloadRequest) -> ReloadReport:
    return await room.queue.ask(request)


@in_loop
async def test_the_first_caller_after_an_edit_gets_its_outcome_and_the_next_does_not() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    first = await reloaded(room, WATCH)
    room.changes = ()
    assert await reloaded(room, asked()) == first
    assert (await reloaded(room, asked())).outcome == "unchanged"


@in_loop
async def test_a_watch_that_sees_nothing_new_hides_no_outcome() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    await reloaded(room, WATCH)
    room.changes = ()
    await reloaded(room, WATCH)
    assert (await reloaded(room, asked())).changes == (ROLL,)
    assert room.reloader.last is not None
    assert room.reloader.last.outcome == "applied"


@in_loop
async def test_what_a_caller_was_told_is_not_told_again() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    await reloaded(room, WATCH)
    assert (await reloaded(room, asked())).why == "the admin API"
    room.changes = ()
    assert (await reloaded(room, asked())).outcome == "unchanged"


@in_loop
async def test_an_edit_that_failed_and_was_taken_back_is_unchanged() -> None:
    room = FakeRoom()
    room.fails["prepare"] = StartError("no")
    assert (await reloaded(room, WATCH)).outcome == "rolled_back"
    room.fails.clear()
    assert (await reloaded(room, asked())).outcome == "unchanged"
    assert room.reloader.last is not None
    assert room.reloader.last.outcome == "rolled_back"


@pytest.mark.parametrize(
    ("options", "tries"),
    [({}, 1), ({"roll_all": True}, 2), ({"seen": frozenset({"boot-1"})}, 2), ({"asked": 1e300}, 2)],
)
@in_loop
async def test_a_caller_who_comes_into_a_failing_edit_gets_its_outcome(
    options: dict[str, Any], tries: int
) -> None:
    room = FakeRoom()
    room.fails["prepare"] = StartError("no")
    first = room.queue.ask(WATCH)
    await asyncio.sleep(0)  # it is under way
    second = room.queue.ask(asked(**options))
    assert (await first).error == (await second).error == "no"
    assert room.told.count("prepare") == tries


def test_servd_reload_tells_what_the_watch_applied(servd: Servd) -> None:
    servd.watching = True
    daemon = servd(web(1), main_py=PLAIN).ready()
    daemon.edit(web(2))
    daemon.wait_for("reload finished", outcome="applied")
    shown = daemon.cli("reload", SERVD_DAEMON__WATCH="true")
    assert shown.returncode == 0
    assert shown.stdout.startswith("applied at 2")
    assert "Z (a file changed) in " in shown.stdout
    assert "~ web roll" in shown.stdout
    assert daemon.ask("POST", "/v1/reload").json()["outcome"] == "unchanged"
    last = daemon.status()["last_reload"]
    assert (last["outcome"], last["why"]) == ("applied", "a file changed")


def test_servd_reload_tells_why_the_edit_of_the_watch_fails(servd: Servd) -> None:
    servd.watching = True
    daemon = servd(web(1), main_py=plain(HOLD + "\n    import os; assert os.environ['V'] == '1'"))
    daemon.ready()
    (servd.folder / "hold").touch()
    daemon.edit(web(2))
    daemon.wait_for("reload planned")
    answers: list[dict[str, Any]] = []
    caller = threading.Thread(
        target=lambda: answers.append(daemon.ask("POST", "/v1/reload").json())
    )
    before = _connections(daemon)
    caller.start()
    wait_until(lambda: _connections(daemon) == before + 1, "it is asked for")
    assert daemon.status()["last_reload"] is None  # asked after that, and answered
    (servd.folder / "hold").unlink()
    caller.join()
    (answer,) = answers
    assert answer["outcome"] == "rolled_back"
    assert "AssertionError" in str(answer)
    assert len(daemon.find("reload failed")) == 1
    again = daemon.cli("reload", SERVD_DAEMON__WATCH="true")
    assert again.returncode == 1
    assert "AssertionError" in again.stderr
    daemon.edit(web(1))
    assert daemon.ask("POST", "/v1/reload").json()["outcome"] == "unchanged"
    assert daemon.status()["last_reload"]["outcome"] == "rolled_back"


def _connections(daemon: ServdProcess) -> int:
    """Sockets of the admin API: the one that listens, and those that were accepted."""
    notify = f"{daemon.runtime}/n/"
    known = [str(c.laddr) for c in psutil.Process(daemon.pid).net_connections("unix")]
    return len([name for name in known if name and not name.startswith(notify)])
