"""Taking the place of the previous daemon: what becomes ours when it agrees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from servd.core.errors import ServdError
from servd.daemon.upgrade.takeover import Takeover
from servd.supervisor.apply.transaction import ApplyError

from support.in_loop import in_loop, settle
from support.upgrade_fakes import FakeComponents


class Previous:
    """The previous daemon, which agrees unless it is told not to."""

    def __init__(self, room: FakeComponents) -> None:
        self.room = room
        self.gone = asyncio.Event()
        self.state = SimpleNamespace(pid=7, services={})
        self.refuses: ServdError | None = None
        self.on_reload: Callable[[], object] = lambda: None

    def listen(self, on_reload: Callable[[], object]) -> None:
        self.on_reload = on_reload

    def expect(self, seconds: float) -> None:
        self.room.tell("expect")

    def failed(self, error: str, last_lines: Any = ()) -> None:
        self.room.tell(f"failed: {error} {list(last_lines)}")

    async def agree(self, at_once: Any, taken: Any, admin: Any) -> None:
        self.room.tell(f"agree {sorted(at_once)} {sorted(taken)} {sorted(admin)}")
        if self.refuses is not None:
            raise self.refuses

    def confirm(self) -> None:
        self.room.tell("confirm")

    def force_stop(self) -> None:
        self.room.tell("force stop")
        self.gone.set()


class Taking:
    """A takeover between fakes."""

    def __init__(self) -> None:
        self.room = FakeComponents()
        self.room.lifecycle.has_started = False
        self.previous = Previous(self.room)
        self.takeover = Takeover(self.room.components, cast("Any", self.previous))
        self.room.take_over = lambda: self.takeover.agree({"web"})


OURS = ["expect", "begin", "agree ['web'] ['a', 'fd:b'] ['admin']"]


@in_loop
async def test_all_becomes_ours_before_it_is_confirmed() -> None:
    taking = Taking()
    assert taking.takeover.draining is None
    assert await taking.takeover.run()
    assert taking.room.told == [*OURS, "folder owned", "admin owned", "confirm"]
    assert taking.room.resources.systemd.mute is False
    assert taking.takeover.draining == 7
    taking.previous.gone.set()
    assert taking.takeover.draining is None
    await taking.takeover.wait_previous_gone(None)


@in_loop
async def test_nothing_becomes_ours_when_the_previous_daemon_stops_instead() -> None:
    taking = Taking()
    taking.previous.refuses = ServdError("the previous daemon is stopping")
    assert not await taking.takeover.run()
    assert taking.room.told == [*OURS, "failed: the previous daemon is stopping []"]
    assert taking.room.resources.systemd.mute is True
    assert taking.takeover.draining is None
    await taking.takeover.wait_previous_gone(None)
    taking.takeover.force_stop()
    assert "force stop" not in taking.room.told


@in_loop
async def test_a_service_that_does_not_start_is_told_with_its_last_lines() -> None:
    taking = Taking()
    taking.room.fails["begin"] = ApplyError("web", "it exited with status 1", ("oh", "no"))
    assert not await taking.takeover.run()
    assert taking.room.told[-1] == "failed: web: it exited with status 1 ['oh', 'no']"


@in_loop
async def test_a_fault_of_ours_is_not_hidden() -> None:
    taking = Taking()
    taking.room.fails["begin"] = RuntimeError("oh")
    with pytest.raises(RuntimeError):
        await taking.takeover.run()


@in_loop
async def test_a_signal_to_stop_ends_the_wait_and_the_previous_daemon_continues() -> None:
    taking = Taking()
    taking.room.take_over = asyncio.Event().wait  # type: ignore[assignment]
    running = asyncio.ensure_future(taking.takeover.run())
    await taking.room.begun.wait()
    taking.room.lifecycle.stop()
    assert not await running
    assert taking.room.told[-1] == "failed: the new servd received a request to stop []"


@in_loop
async def test_a_reload_that_the_previous_daemon_leaves_is_made_here() -> None:
    taking = Taking()
    assert await taking.takeover.run()
    taking.previous.on_reload()
    request, _ = await taking.room.queue.take()
    assert request.why == "requested during the upgrade"
    taking.previous.gone.set()
    await settle()


@in_loop
async def test_a_previous_daemon_that_drains_too_long_is_told_to_end() -> None:
    taking = Taking()
    assert await taking.takeover.run()
    await taking.takeover.wait_previous_gone(0.01)
    assert taking.room.told[-1] == "force stop"
    assert taking.takeover.draining is None
