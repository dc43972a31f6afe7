"""Which events call which hooks, and which calls are dropped: without a program or a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from servd.config.model import Hook, HookEvent
from servd.core.events import Event
from servd.daemon import hooks as module
from servd.daemon.hooks import _QUEUED_CALLS, HookError, Hooks, hook_event
from servd.daemon.log.event import LogEvent

from support.in_loop import in_loop, settle


@pytest.mark.parametrize(
    ("event", "more", "expected"),
    [
        (Event.CRASH_LOOP, {}, "crash_loop"),
        (Event.SERVICE_FAILED, {}, "service_failed"),
        (Event.RELOAD_FINISHED, {"outcome": "applied"}, "reload_applied"),
        (Event.RELOAD_FINISHED, {"outcome": "unchanged"}, None),
        (Event.RELOAD_FAILED, {"outcome": "invalid"}, "reload_failed"),
        (Event.RELOAD_FAILED, {"outcome": "rolled_back"}, "reload_failed"),
        (Event.CERTIFICATE_EXPIRING, {}, "certificate_expiring"),
        (Event.CERTIFICATE_EXPIRED, {}, "certificate_expiring"),
        (Event.WORKER_DIED, {}, "worker_replaced"),
        (Event.WORKER_RECYCLED, {}, "worker_replaced"),
        (Event.WORKER_READY, {}, None),
        (Event.RELOAD_STARTED, {}, None),
        (Event.HOOK_FAILED, {}, None),
        (Event.HOOK_DROPPED, {}, None),
    ],
)
def test_hooks_know_an_event_by_their_own_name(
    event: Event, more: Mapping[str, str], expected: HookEvent | None
) -> None:
    assert hook_event({"event": str(event), **more}) == expected


def hook(*on: HookEvent, url: str = "http://127.0.0.1/") -> Hook:
    return Hook(on=on, url=url)


def crash(number: int = 0) -> LogEvent:
    return LogEvent.by_daemon({"event": Event.CRASH_LOOP, "number": number})


class Calls:
    """Hooks whose calls are answered by the test: each waits until it `goes_on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *known: Hook) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.called: list[Hook] = []
        self.goes_on = asyncio.Event()
        self.fails: Exception | None = None
        self.hooks = Hooks(known, "/", {})
        monkeypatch.setattr(module, "_post", self._post)

    async def _post(self, hook: Hook, body: bytes) -> None:
        self.called.append(hook)
        self.bodies.append(json.loads(body))
        await self.goes_on.wait()
        if self.fails is not None:
            raise self.fails

    async def take(self, *events: LogEvent) -> None:
        for event in events:
            self.hooks.take(event)
        await settle()


@in_loop
async def test_every_hook_on_an_event_is_called_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    both = hook("crash_loop", "reload_failed", url="http://a/")
    one, other = hook("crash_loop", url="http://b/"), hook("reload_failed", url="http://c/")
    calls = Calls(monkeypatch, both, one, other)
    await calls.take(crash(1))
    assert calls.called == [both, one]
    assert calls.bodies[0]["hook"] == "crash_loop"
    assert calls.bodies[0]["event"] == "crash loop"
    assert calls.bodies[0]["number"] == 1
    assert calls.bodies[0]["host"]
    calls.goes_on.set()
    await calls.hooks.stop()


@in_loop
async def test_calls_of_one_hook_are_made_by_turns_in_the_order_of_the_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(monkeypatch, hook("crash_loop"))
    await calls.take(*map(crash, range(5)))
    assert len(calls.bodies) == 1
    calls.goes_on.set()
    await settle()
    assert [body["number"] for body in calls.bodies] == list(range(5))
    await calls.hooks.stop()


@in_loop
async def test_calls_beyond_the_queue_are_dropped_and_told_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow, quick = hook("crash_loop", url="http://slow/"), hook("reload_failed", url="http://q/")
    calls = Calls(monkeypatch, slow, quick)
    with capture_logs() as logs:
        await calls.take(*map(crash, range(1 + _QUEUED_CALLS + 3)))
        dropped = [entry for entry in logs if entry["event"] == Event.HOOK_DROPPED]
        assert len(dropped) == 3
        assert {entry["hook"] for entry in dropped} == {"crash_loop"}
    await calls.take(LogEvent.by_daemon({"event": Event.RELOAD_FAILED}))
    assert calls.called == [slow, quick]  # another hook has a queue of its own
    calls.goes_on.set()
    await asyncio.wait(calls.hooks._calls)
    await settle()
    assert calls.called.count(slow) == 1 + _QUEUED_CALLS
    await calls.take(crash())
    assert calls.called.count(slow) == 2 + _QUEUED_CALLS
    await calls.hooks.stop()


@in_loop
async def test_hooks_that_a_reload_changes_are_called_from_the_next_event_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, after = hook("crash_loop", url="http://a/"), hook("crash_loop", url="http://b/")
    calls = Calls(monkeypatch, before)
    calls.goes_on.set()
    await calls.take(crash())
    calls.hooks.hooks = (after,)
    await calls.take(crash())
    calls.hooks.hooks = ()
    await calls.take(crash())
    assert calls.called == [before, after]
    await calls.hooks.stop()


@pytest.mark.parametrize("error", [HookError("responded with 500", ["oh"]), RuntimeError("oh")])
@in_loop
async def test_a_call_that_fails_is_told_and_the_next_is_made(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch, hook("crash_loop", url="http://user:secret@host:1/path"))
    calls.goes_on.set()
    calls.fails = error
    with capture_logs() as logs:
        await calls.take(crash(), crash())
    failed = [entry for entry in logs if entry["event"] == Event.HOOK_FAILED]
    assert [entry["target"] for entry in failed] == ["host:1"] * 2
    assert "secret" not in str(failed)
    await calls.hooks.stop()


@in_loop
async def test_what_is_under_way_at_the_end_gets_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, hook("crash_loop"))
    await calls.take(crash())
    stopping = asyncio.ensure_future(calls.hooks.stop())
    await settle()
    assert not stopping.done()
    calls.goes_on.set()
    with capture_logs() as logs:
        await stopping
    assert Event.HOOKS_DROPPED not in [entry["event"] for entry in logs]


@in_loop
async def test_an_event_right_before_the_end_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, hook("crash_loop"))
    calls.goes_on.set()
    calls.hooks.take(crash())
    await calls.hooks.stop()
    assert len(calls.bodies) == 1


@in_loop
async def test_what_takes_longer_than_that_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOOK_SECONDS", 0.01)
    calls = Calls(monkeypatch, hook("crash_loop"))
    await calls.take(*map(crash, range(3)))
    with capture_logs() as logs:
        await calls.hooks.stop()
    assert [entry["calls"] for entry in logs if entry["event"] == Event.HOOKS_DROPPED] == [3]
    assert calls.hooks._calls == {}
