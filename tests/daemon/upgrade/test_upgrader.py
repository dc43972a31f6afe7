"""An attempt to replace the daemon: what is handed over when, and taken back when it fails."""

from __future__ import annotations

import asyncio
import os

import pytest
from structlog.testing import capture_logs

from servd.daemon.reload.request import ReloadRequest
from servd.daemon.upgrade.new_daemon import Ready, UpgradeError
from servd.daemon.upgrade.state import OverrideRecord
from servd.daemon.upgrade.upgrader import Upgrades
from servd.plan.overrides import RefusedError
from servd.wire.gpus import Gpu, GpuSnapshot

from support.in_loop import in_loop, settle
from support.upgrade_fakes import FakeComponents, FakeNewDaemon

READY = Ready("2", ["a"], ["admin"], ["web"])
HANDED_OVER = [
    "start", "sockets handed over ['a']", "admin handed over ['admin']", "folder handed over",
    "replaced by 99", "said {'yours': True}", "confirms",
]  # fmt: skip
TAKEN_BACK = ["admin handed over []", "folder owned", "goes on", "dismissed", "sockets reclaimed"]

TOLD = GpuSnapshot((Gpu("GPU-a", "0", near={"GPU-b": 1}),), "580")


class Attempt:
    """A daemon that runs, and the one that shall replace it: ready at once unless told so."""

    def __init__(self, *, is_owned: bool = False) -> None:
        self.room = FakeComponents()
        self.new = FakeNewDaemon(self.room)
        self.new.answers["ready"] = self._ready
        self.upgrades = Upgrades(self.room.components, is_owned=is_owned, start=self.new.start)
        self.fails: BaseException | None = None
        self.continues = asyncio.Event()
        self.continues.set()

    async def _ready(self) -> Ready:
        await self.continues.wait()
        if self.fails is not None:
            raise self.fails
        return READY


@in_loop
async def test_everything_is_handed_over_before_the_new_daemon_is_told_that_it_runs() -> None:
    attempt = Attempt()
    report = await attempt.upgrades.request()
    await settle()
    assert (report.outcome, report.pid, report.version) == ("replaced", 99, "2")
    assert attempt.room.told[: len(HANDED_OVER)] == HANDED_OVER
    assert attempt.room.lifecycle.stopping.is_set()
    assert attempt.upgrades.replaced is not None
    assert attempt.upgrades.replaced.at_once == ["web"]
    assert attempt.room.told[len(HANDED_OVER) :] == ["admin stopped", "kill"]
    late = await attempt.room.queue.ask(ReloadRequest("late"))
    assert "servd was upgraded" in str(late.error)


@in_loop
async def test_the_document_has_what_the_new_daemon_cannot_read_from_files() -> None:
    attempt = Attempt()
    attempt.room.supervisor.context.workers.gpus.peaks["model"] = 7
    attempt.room.supervisor.context.workers.gpus.take(TOLD)
    attempt.room.supervisor.context.workers.gpus.take(None)
    await attempt.upgrades.request()
    state = attempt.new.state
    assert (state.pid, state.lock, state.generation, state.numbers) == (
        os.getpid(),
        3,
        5,
        {"web": 3},
    )
    assert [item.key for item in state.sockets] == [
        "a"
    ]  # what systemd gave is named by `inherited`
    assert state.inherited == {"b": [8]}
    assert [item.key for item in state.admin] == ["admin"]
    assert state.by_hand == {"web": OverrideRecord(4, False, 2)}
    assert (state.gpus, state.gpu_peaks) == ({}, {"model": 7})
    assert state.known_gpus == TOLD, "also while the driver is silent"
    assert attempt.new.environ["NOTIFY"] == "1"


@in_loop
async def test_a_new_daemon_that_is_not_ready_changes_nothing() -> None:
    attempt = Attempt()
    attempt.fails = UpgradeError("web: it exited with status 1", ("oh", "no"))
    with capture_logs() as logs:
        report = await attempt.upgrades.request()
    assert (report.outcome, report.pid) == ("failed", os.getpid())
    assert (report.error, report.last_lines) == ("web: it exited with status 1", ("oh", "no"))
    assert attempt.room.told == ["start", "dismissed", "sockets reclaimed"]
    assert not attempt.room.lifecycle.stopping.is_set()
    assert attempt.upgrades.replaced is None
    assert [e["error"] for e in logs if e["event"] == "upgrade failed"] == [report.error]


@in_loop
async def test_what_was_handed_over_is_taken_back_when_it_is_not_confirmed() -> None:
    attempt = Attempt()
    attempt.room.fails["confirms"] = UpgradeError("the new servd did not take over in time")
    report = await attempt.upgrades.request()
    assert (report.outcome, report.error) == ("failed", "the new servd did not take over in time")
    assert attempt.room.told == [*HANDED_OVER, *TAKEN_BACK]
    assert not attempt.room.lifecycle.stopping.is_set()
    assert attempt.room.queue.refusal == "servd is stopping"


@in_loop
async def test_an_internal_error_is_an_upgrade_that_failed() -> None:
    attempt = Attempt()
    attempt.fails = RuntimeError("oh")
    with capture_logs() as logs:
        report = await attempt.upgrades.request()
    assert (report.outcome, report.error) == ("failed", "internal error: RuntimeError('oh')")
    assert "internal error" in [entry["event"] for entry in logs]
    assert attempt.room.told[-2:] == ["dismissed", "sockets reclaimed"]


@in_loop
async def test_an_end_dismisses_the_new_daemon() -> None:
    attempt = Attempt()
    attempt.continues.clear()
    asked = attempt.upgrades.request()
    await settle()
    await attempt.upgrades.stop()
    report = await asked
    assert (report.outcome, report.error) == ("failed", "servd is stopping")
    assert attempt.room.told == ["start", "dismissed", "sockets reclaimed"]


@in_loop
async def test_one_attempt_answers_all_who_ask_meanwhile_and_the_next_is_another() -> None:
    attempt = Attempt()
    attempt.continues.clear()
    attempt.fails = UpgradeError("no")
    first = attempt.upgrades.request()
    await settle()
    assert attempt.upgrades.request() is first
    attempt.continues.set()
    await first
    assert attempt.upgrades.request() is not first
    await attempt.upgrades.stop()


@in_loop
async def test_an_attempt_waits_for_its_turn_among_the_reloads() -> None:
    attempt = Attempt()
    async with attempt.room.reloader.turn:
        asked = attempt.upgrades.request()
        await settle()
        assert attempt.room.told == []
    assert (await asked).outcome == "replaced"


@in_loop
async def test_a_reload_that_waits_is_left_to_the_new_daemon() -> None:
    attempt = Attempt()
    attempt.room.reloader.is_busy = True
    await attempt.upgrades.request()
    assert "said {'reload': True}" in attempt.room.told


@pytest.mark.parametrize("why", ["starting", "stopping", "owned", "first process"])
@in_loop
async def test_an_upgrade_that_cannot_be_is_refused(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Attempt(is_owned=why == "owned")
    attempt.room.lifecycle.has_started = why != "starting"
    if why == "stopping":
        attempt.room.lifecycle.stop()
    if why == "first process":
        monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(RefusedError, match="cannot upgrade servd"):
        attempt.upgrades.request()
    with capture_logs() as logs:
        attempt.upgrades.ask()
    assert [entry["event"] for entry in logs] == ["upgrade refused"]
    assert attempt.room.told == []


@in_loop
async def test_a_replaced_daemon_tells_what_it_has_released_and_ended_here_and_before() -> None:
    attempt = Attempt()
    await attempt.upgrades.request()
    replaced = attempt.upgrades.replaced
    assert replaced is not None
    await settle()
    attempt.room.told.clear()
    ended = asyncio.Event()

    async def ended_before(name: str) -> None:
        attempt.room.tell(f"waits for the {name} before")
        await ended.wait()

    ending = asyncio.ensure_future(
        replaced.end(attempt.room.components.supervisor, 5, ended_before)
    )
    await settle()
    assert attempt.room.told == [
        "release ['web']: servd is being upgraded", "said {'released': ['web']}",
        "stop: servd is being upgraded", "waits for the web before",
    ]  # fmt: skip
    ended.set()
    assert await ending
    assert attempt.room.told[-1] == "said {'ended': ['web']}"
