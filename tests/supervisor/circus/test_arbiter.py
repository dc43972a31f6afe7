"""The arbiter looks after every service, whatever happens to one of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from servd.core.events import Event
from servd.supervisor.circus.arbiter import BACKSTOP_SECONDS, ServdArbiter

from support.virtual_time import virtual_time


class Watched:
    """A watcher that counts its looks, and fails at each one where it is told to."""

    def __init__(self, name: str, fails: str = "") -> None:
        self.launch = SimpleNamespace(plan=SimpleNamespace(name=name))
        self.looks = {"reap": 0, "manage": 0}
        self._fails = fails
        self.processes: dict[int, Any] = {}
        self.is_full = False
        self.limiter = SimpleNamespace(is_open=True)
        self.reaps: list[int] = []

    def _look(self, what: str) -> None:
        self.looks[what] += 1
        if what == self._fails:
            raise TypeError("unhashable type: 'list'")

    def reap_processes(self) -> None:
        self._look("reap")
        self.reaps.clear()

    def manage_processes(self) -> None:
        self._look("manage")


@pytest.mark.parametrize("fails", ["reap", "manage"])
def test_a_fault_in_one_service_keeps_no_other_from_being_looked_after(fails: str) -> None:
    @virtual_time
    async def test() -> None:
        arbiter = ServdArbiter(lambda: -1)
        bad, good = Watched("bad", fails), Watched("good")
        watchers: list[Any] = [bad, good]
        arbiter.watchers = watchers
        arbiter.begin()
        with capture_logs() as logged:
            arbiter.manage_watchers()
            await asyncio.sleep(3.5 * BACKSTOP_SECONDS)
        await arbiter.end()
        assert good.looks == {"reap": 4, "manage": 4}
        assert bad.looks == {"reap": 4, "manage": 4}
        assert [(e["event"], e["service"]) for e in logged] == [(Event.INTERNAL_ERROR, "bad")] * 4

    test()


def test_only_the_service_of_an_ended_process_is_looked_at() -> None:
    @virtual_time
    async def test() -> None:
        ended = [7]
        arbiter = ServdArbiter(lambda: ended[0] if ended else None)
        idle, its = Watched("idle"), Watched("its")
        idle.is_full = its.is_full = True
        its.processes = {7: None}
        its.reaps = ended
        watchers: list[Any] = [idle, its]
        arbiter.watchers = watchers
        arbiter.manage_watchers()
        assert (idle.looks["reap"], its.looks["reap"]) == (0, 1)
        arbiter.manage_watchers()
        assert (idle.looks["reap"], its.looks["reap"]) == (0, 1)
        ended.append(8)  # a child of other code
        arbiter.manage_watchers()
        assert (idle.looks["reap"], its.looks["reap"]) == (1, 2)
        assert idle.looks["manage"] == its.looks["manage"] == 0

    test()


def test_a_service_is_passed_over_only_while_it_is_full() -> None:
    @virtual_time
    async def test() -> None:
        arbiter = ServdArbiter(lambda: None)
        full, first, second = Watched("full"), Watched("first"), Watched("second")
        full.is_full = True
        first.limiter = SimpleNamespace(is_open=False)
        watchers: list[Any] = [full, first, second]
        arbiter.watchers = watchers
        arbiter.manage_watchers()
        assert [each.looks["manage"] for each in (full, first, second)] == [0, 1, 0]

    test()
