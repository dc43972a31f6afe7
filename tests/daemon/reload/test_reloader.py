"""From a request to its outcome, with fakes for all that a reload reads and changes."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from structlog.testing import capture_logs

from servd.config.model import Config
from servd.core.diagnostics import Diagnostic, Place
from servd.core.errors import ConfigError, ServdError, StartError
from servd.core.events import Event
from servd.daemon.reload.request import OutdatedError, ReloadReport, ReloadRequest
from servd.plan.model import Plan
from servd.plan.overrides import RefusedError, ScaleService
from servd.supervisor.apply.mode import FIRST_START, MANUAL, RELOAD
from servd.supervisor.apply.transaction import ApplyError

from support.in_loop import in_loop, settle
from support.reload_fakes import BEGUN, ROLL, FakeRoom

HANGUP = ReloadRequest("SIGHUP")
SCALE = ReloadRequest("scale", read=False, act=ScaleService("web", 3))
ALL_OF_IT = ["before reading", "read", "plan", "prepare", "apply", "commit", "after reload"]
UNDONE = ["before reading", "read", "plan", "prepare", "apply", "undo", "after reload"]


def config(**daemon: Any) -> Config:
    return Config.model_validate({"daemon": daemon})


async def reloaded(room: FakeRoom, request: ReloadRequest = HANGUP) -> ReloadReport:
    room.told.clear()
    return await room.reloader._queue.ask(request)


@in_loop
async def test_what_is_planned_is_brought_into_force_in_order() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    report = await reloaded(room)
    assert (report.outcome, report.error, report.changes) == ("applied", None, (ROLL,))
    assert room.told == ALL_OF_IT
    assert room.applied == [(ROLL,)]
    assert room.modes == [RELOAD]
    desired = room.reloader.desired
    assert desired.plan.runtime_dir == "/run/1"
    assert (desired.revision, room.reloader.revision) == (2, "boot-2")
    assert desired.loaded_at == report.since == report.at != BEGUN
    assert room.reloader.last is report


@in_loop
async def test_only_what_would_change_is_looked_at_and_planned_again_if_it_binds_more() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    await reloaded(room)
    assert room.addresses.looks == [{"web"}]
    room.addresses.finds = [True]
    assert (await reloaded(room)).outcome == "applied"
    assert room.told == [*ALL_OF_IT[:3], *ALL_OF_IT[1:]]


@in_loop
async def test_what_a_plan_was_refused_for_is_looked_at_again() -> None:
    room = FakeRoom()
    room.fails["plan"] = ConfigError([Diagnostic(Place("servd.toml", 1, 1), "it binds itself")])
    assert (await reloaded(room)).outcome == "invalid"
    assert room.addresses.looks == [None]
    assert room.told.count("plan") == 1
    room.addresses.finds = [True]
    assert (await reloaded(room)).outcome == "invalid"
    assert room.told.count("plan") == 2


@in_loop
async def test_a_retry_logs_only_new_warnings() -> None:
    room = FakeRoom()
    at = Place("servd.toml", 1, 1)
    room.diagnostics = (Diagnostic(at, "old", severity="warning"),)
    retry = dataclasses.replace(HANGUP, is_retry=True)
    told = []
    for request in (HANGUP, HANGUP, retry):
        with capture_logs() as logged:
            await reloaded(room, request)
        told.append([e["warning"] for e in logged if e["event"] == Event.CONFIG_WARNING])
    assert [len(each) for each in told] == [1, 1, 0]
    room.diagnostics = (*room.diagnostics, Diagnostic(at, "new", severity="warning"))
    with capture_logs() as logged:
        await reloaded(room, retry)
    (warning,) = [e["warning"] for e in logged if e["event"] == Event.CONFIG_WARNING]
    assert "new" in warning


@in_loop
async def test_a_reload_without_a_change_keeps_the_revision_and_its_time() -> None:
    room = FakeRoom()
    report = await reloaded(room)
    assert (report.outcome, report.since) == ("unchanged", BEGUN)
    assert (room.reloader.last, room.reloader.unchanged_at) == (report, None)
    assert room.told == ALL_OF_IT
    assert (room.reloader.desired.revision, room.reloader.desired.loaded_at) == (1, BEGUN)
    assert room.reloader.desired.plan.runtime_dir == "/run/1"


@in_loop
async def test_a_change_of_the_daemons_own_settings_alone_is_a_change() -> None:
    room = FakeRoom()
    room.config = config(watch=False)
    assert (await reloaded(room)).outcome == "applied"
    assert room.reloader.desired.revision == 2
    assert room.reloader.desired.loaded.config.daemon.watch is False
    assert (await reloaded(room)).outcome == "unchanged"


@in_loop
async def test_a_key_that_waits_for_a_restart_is_named_each_time() -> None:
    room = FakeRoom()
    room.config = config(runtime_dir="/run/other")
    for _ in range(2):
        report = await reloaded(room)
        assert (report.outcome, report.restart_needed) == ("applied", ("daemon.runtime_dir",))
    assert room.reloader.desired.loaded.config.daemon.runtime_dir == Config().daemon.runtime_dir
    room.config = config(runtime_dir="/run/other", watch=False)
    report = await reloaded(room)
    assert (report.outcome, report.restart_needed) == ("applied", ("daemon.runtime_dir",))
    assert room.reloader.restart_needed(room.config) == ("daemon.runtime_dir",)


@in_loop
async def test_an_invalid_configuration_touches_nothing_and_all_its_mistakes_are_told() -> None:
    room = FakeRoom()
    mistakes = [
        Diagnostic(Place("servd.toml", 1), "first", code="x", trace="Traceback\nlast line"),
        Diagnostic(Place("servd.toml", 2), "second", code="y"),
    ]
    room.fails["plan"] = ConfigError(mistakes)
    before = room.reloader.desired
    report = await reloaded(room)
    assert report.outcome == "invalid"
    assert report.details == tuple(mistake.summary() for mistake in mistakes)
    assert report.error == report.details[0]
    assert report.last_lines == ("Traceback", "last line")
    assert room.told == ["before reading", "read", "plan", "after reload"]
    assert room.reloader.desired is before
    assert room.reloader.last is report


@in_loop
async def test_what_cannot_be_read_is_invalid_too() -> None:
    room = FakeRoom()
    room.fails["read"] = ServdError("servd.toml: no such file")
    report = await reloaded(room)
    assert (report.outcome, report.error) == ("invalid", "servd.toml: no such file")
    assert room.told == ["before reading", "read", "after reload"]


@in_loop
async def test_a_service_that_cannot_change_has_the_settings_undone_after_the_services() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    room.fails["apply"] = ApplyError("web", "it exited with status 1", ("oh", "no"))
    before = room.reloader.desired
    report = await reloaded(room)
    assert (report.outcome, report.service) == ("rolled_back", "web")
    assert (report.error, report.last_lines) == ("web: it exited with status 1", ("oh", "no"))
    assert report.changes == (ROLL,)
    assert room.told == UNDONE
    assert room.reloader.desired is before
    assert report.since == BEGUN


@in_loop
async def test_settings_that_cannot_be_prepared_leave_the_services_alone() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    room.fails["prepare"] = StartError("cannot listen on :80")
    report = await reloaded(room)
    assert (report.outcome, report.error) == ("rolled_back", "cannot listen on :80")
    assert room.told == ["before reading", "read", "plan", "prepare", "after reload"]
    assert room.reloader.desired.revision == 1


@in_loop
async def test_a_refusal_is_raised_to_the_caller_and_is_no_report() -> None:
    room = FakeRoom()
    room.fails["plan"] = RefusedError("web is needed", "use --cascade")
    with pytest.raises(RefusedError, match="web is needed"):
        await reloaded(room, SCALE)
    assert room.told == ["before reading", "plan", "after reload"]
    assert room.reloader.last is None
    assert room.reloader.last_act is None
    del room.fails["plan"]
    assert (await reloaded(room)).outcome == "unchanged"


@in_loop
async def test_a_caller_that_has_seen_another_revision_changes_nothing() -> None:
    room = FakeRoom()
    with pytest.raises(OutdatedError):
        await reloaded(room, dataclasses.replace(SCALE, seen=frozenset({"boot-0", "other-1"})))
    assert room.told == []
    report = await reloaded(room, dataclasses.replace(SCALE, seen=frozenset({"boot-1"})))
    assert report.outcome == "unchanged"


@in_loop
async def test_of_two_that_have_seen_the_same_the_second_comes_too_late() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    edit = ReloadRequest("edit", seen=frozenset({"boot-1"}))
    first, second = room.queue.ask(edit), room.queue.ask(edit)
    assert (await first).outcome == "applied"
    with pytest.raises(OutdatedError):
        await second


@in_loop
async def test_manual_actions_read_nothing_and_are_kept_apart_from_reloads() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    report = await reloaded(room, SCALE)
    assert room.told == [call for call in ALL_OF_IT if call != "read"]
    assert room.modes == [MANUAL]
    assert room.reloader.last_act is report
    assert room.reloader.last is None
    assert sum(room.reloader.history.outcomes.values()) == 0
    assert room.reloader.desired.revision == 2


@in_loop
async def test_reloads_are_counted_by_their_outcome() -> None:
    room = FakeRoom()
    await reloaded(room)
    room.fails["plan"] = ServdError("no")
    await reloaded(room)
    assert room.reloader.history.last_successful is False
    del room.fails["plan"]
    await reloaded(room)
    assert room.reloader.last is not None
    assert (room.reloader.last.outcome, room.reloader.unchanged_at is None) == ("invalid", False)
    room.changes = (ROLL,)
    await reloaded(room)
    assert room.reloader.history.outcomes == {
        "applied": 1, "unchanged": 2, "invalid": 1, "rolled_back": 0,
    }  # fmt: skip
    assert (room.reloader.last.outcome, room.reloader.unchanged_at) == ("applied", None)
    assert room.reloader.history.last_successful is True


@pytest.mark.parametrize("fault", ["plan", "apply", "before reading"])
@in_loop
async def test_an_internal_error_is_answered_and_the_next_request_is_served(fault: str) -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    room.fails[fault] = RuntimeError("oh")
    with capture_logs() as logs:
        report = await reloaded(room)
    assert (report.outcome, report.error) == ("rolled_back", "internal error: RuntimeError('oh')")
    assert report.since == room.reloader.desired.loaded_at
    assert room.reloader.last is report
    assert "internal error" in [entry["event"] for entry in logs]
    assert room.told[-1] == "after reload"
    assert ("undo" in room.told) == (fault == "apply")
    room.fails.clear()
    assert (await reloaded(room)).outcome == "applied"


@in_loop
async def test_a_fault_of_what_watches_does_not_change_what_became_of_the_reload() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    room.fails["after reload"] = RuntimeError("oh")
    with capture_logs() as logs:
        report = await reloaded(room)
        room.fails["plan"] = RefusedError("web is needed")
        with pytest.raises(RefusedError):
            await reloaded(room, SCALE)
    assert (report.outcome, report.error) == ("applied", None)
    assert room.reloader.last is report
    assert room.reloader.history.outcomes["applied"] == 1
    assert room.reloader.history.outcomes["rolled_back"] == 0
    assert [entry["event"] for entry in logs].count("internal error") == 2


@in_loop
async def test_an_end_undoes_what_is_under_way_and_answers_the_rest() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    room.goes_on.clear()
    before = room.reloader.desired
    under_way, waiting = room.queue.ask(HANGUP), room.queue.ask(SCALE)
    await room.applying.wait()
    assert room.reloader.is_busy
    room.context.stopping.set()
    await room.reloader.stop()
    assert room.told[-1] == "undo"
    assert room.reloader.desired is before
    for future in (under_way, waiting):
        report = await future
        assert (report.outcome, report.error) == ("rolled_back", "servd is stopping")
    assert (await room.queue.ask(HANGUP)).error == "servd is stopping"
    assert not room.reloader.is_busy


@in_loop
async def test_a_request_whose_turn_comes_after_the_end_began_is_refused() -> None:
    room = FakeRoom()
    async with room.reloader.turn:
        waiting = room.queue.ask(HANGUP)
        await settle()
        room.context.stopping.set()
    assert (await waiting).error == "servd is stopping"
    assert room.told == []


@in_loop
async def test_a_held_turn_keeps_reloads_waiting() -> None:
    room = FakeRoom()
    assert not room.reloader.is_busy
    async with room.reloader.turn:
        waiting = room.queue.ask(HANGUP)
        await settle()
        assert room.told == []
        assert room.reloader.is_busy
    assert (await waiting).outcome == "unchanged"
    await settle()
    assert not room.reloader.is_busy


@in_loop
async def test_a_caller_that_goes_away_does_not_disturb_the_reload() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    room.goes_on.clear()
    asked = room.queue.ask(HANGUP)
    await room.applying.wait()
    asked.cancel()
    room.goes_on.set()
    assert (await room.queue.ask(SCALE)).outcome == "applied"
    assert room.reloader.desired.revision == 3


@in_loop
async def test_a_plan_changes_nothing_and_tells_nobody() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    planned = await room.reloader.plan(roll=True)
    assert planned.changes == (ROLL,)
    assert room.requests[0].roll_all
    assert room.told == ["read", "plan"]
    assert room.reloader.desired.revision == 1


@in_loop
async def test_the_first_start_applies_the_desired_plan_in_its_turn() -> None:
    room = FakeRoom()
    room.goes_on.clear()
    beginning = asyncio.ensure_future(room.reloader.begin(FIRST_START))
    await settle()
    waiting = room.queue.ask(HANGUP)
    await settle()
    assert room.told == ["apply"]
    room.goes_on.set()
    await beginning
    await waiting
    assert room.modes == [FIRST_START, RELOAD]
    assert room.applied[0] == ()
    assert isinstance(room.reloader.desired.plan, Plan)


@in_loop
async def test_watching_begins_with_what_was_read_at_the_start() -> None:
    room = FakeRoom()
    room.reloader.watch()
    assert room.told == ["watch"]


@in_loop
async def test_one_event_has_all_that_a_person_needs_to_act() -> None:
    room = FakeRoom()
    room.changes = (ROLL,)
    with capture_logs() as logs:
        await reloaded(room)
        room.fails["apply"] = ApplyError("web", "it exited with status 1", ("oh", "no"))
        await reloaded(room, SCALE)
    finished, failed = (
        entry for entry in logs if entry["event"] in ("reload finished", "reload failed")
    )
    assert (finished["outcome"], finished["reason"]) == ("applied", "SIGHUP")
    assert finished["changes"] == ["~ web roll"]
    assert "error" not in finished
    assert (failed["outcome"], failed["failed_service"]) == ("rolled_back", "web")
    assert (failed["error"], failed["last_lines"]) == ("web: it exited with status 1", ["oh", "no"])
    assert failed["log_level"] == "error"
