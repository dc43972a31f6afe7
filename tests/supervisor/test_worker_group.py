"""The workers of one generation: how they become ready, catch up, and end."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

import pytest

from servd.core.events import Event
from servd.plan.model import ServicePlan
from servd.supervisor.exits import FailedStartError
from servd.supervisor.generation import Generation
from servd.supervisor.worker_group import WorkerGroup
from servd.wire.graces import FORCED_STOP_SECONDS, KILL_SECONDS, UNREADY_STOP_SECONDS

from support.fake_worker import NEVER, Fakes, Script
from support.virtual_time import now, virtual_time

APP = """
[services.web]
app = "main:app"
listen = "127.0.0.1:0"
workers = 2
"""

TERM, KILL = signal.SIGTERM, signal.SIGKILL
DIES = Script(dies_after=0.5, failed="broken")


async def began(
    fakes: Fakes, *keys: str, text: str = APP, accept: bool = True, probation: bool = False
) -> tuple[Generation, WorkerGroup]:
    return await fakes.begin("\n".join((text, *keys)), accept=accept, probation=probation)


def changed(fakes: Fakes, *keys: str) -> ServicePlan:
    (plan,) = fakes.plan("\n".join((APP, *keys))).services
    return plan


# becoming ready


@virtual_time
async def test_a_group_is_ready_with_its_slowest_worker(fakes: Fakes) -> None:
    fakes.plays("web", Script(ready_after=4.0), slot=1)
    generation, group = await began(fakes)
    await group.until_ready([0])
    assert now() == 1.0
    assert (group.ready_count, group.is_ready) == (1, False)
    await generation.until_ready()
    assert now() == 4.0
    assert (group.ready_count, group.is_ready) == (2, True)


@virtual_time
async def test_a_death_on_probation_ends_the_wait_at_once(fakes: Fakes) -> None:
    fakes.plays("web", DIES, slot=1)
    fakes.plays("web", Script(ready_after=30.0), slot=0)
    generation, _ = await began(fakes, probation=True)
    with pytest.raises(FailedStartError, match=r"^worker 1: broken$") as raised:
        await generation.until_ready()
    assert now() == 0.5
    assert len(fakes.of("web")) == 2
    assert raised.value.last is not None
    assert (raised.value.last.worker, raised.value.last.status) == (1, 1)


@virtual_time
async def test_without_probation_deaths_are_tried_again_until_the_startup_is_over(
    fakes: Fakes,
) -> None:
    fakes.plays("web", DIES, slot=1)
    generation, _ = await began(fakes, "timeouts.startup = 7", "restart.backoff = 1")
    with pytest.raises(FailedStartError, match="worker 1: broken"):
        await generation.until_ready()
    assert now() == 7.0
    assert len(fakes.of("web", slot=1)) >= 3


@virtual_time
async def test_a_worker_that_dies_once_delays_a_start_and_no_more(fakes: Fakes) -> None:
    fakes.plays("web", DIES, Script(), slot=1)
    generation, _ = await began(fakes)
    await generation.until_ready()
    assert now() == 0.5 + 0.5 + 1.0
    assert generation.record.start_failures == 1


@virtual_time
async def test_what_is_given_up_ends_the_wait_at_once(fakes: Fakes) -> None:
    fakes.plays("web", DIES, slot=1)
    generation, group = await began(fakes, 'restart.policy = "never"')
    with pytest.raises(FailedStartError, match="worker 1: broken"):
        await generation.until_ready()
    assert now() == 0.5
    assert group.given_up


@virtual_time
async def test_what_is_neither_ready_nor_dead_in_time_is_killed(fakes: Fakes) -> None:
    fakes.plays("web", Script(ready_after=NEVER))
    generation, _ = await began(fakes, "timeouts.startup = 3", probation=True)
    with pytest.raises(FailedStartError, match="was not ready within 3 s"):
        await generation.until_ready()
    assert now() == 3.0
    assert [w.sent for w in fakes.of("web")] == [[KILL], [KILL]]


@virtual_time
async def test_a_stop_ends_the_wait_for_what_was_on_its_way(fakes: Fakes) -> None:
    fakes.plays("web", Script(ready_after=NEVER))
    generation, _ = await began(fakes)
    waiting = asyncio.ensure_future(generation.until_ready())
    await asyncio.sleep(1.0)
    await generation.stop_accepting()
    with pytest.raises(FailedStartError, match="stopped before it was ready"):
        await waiting


@virtual_time
async def test_nothing_is_started_again_in_a_generation_that_is_undone(fakes: Fakes) -> None:
    """Its workers die one after the other, and each death is a look at the empty slots."""
    fakes.plays("web", DIES, slot=1)
    generation, _ = await began(fakes, accept=False, probation=True)
    with pytest.raises(FailedStartError):
        await generation.until_ready()
    await generation.discard()
    assert now() == 0.5
    assert [w.sent for w in fakes.of("web")] == [[KILL], []]


# catching up


@virtual_time
async def test_a_worker_that_is_ready_late_is_sent_what_changed_meanwhile(fakes: Fakes) -> None:
    fakes.plays("web", Script(ready_after=5.0), slot=1)
    generation, group = await began(fakes)
    await group.until_ready([0])
    await generation.adjust(changed(fakes, 'log.level = "debug"'))
    first, late = fakes.of("web")
    assert (first.orders, late.orders) == (["adjust"], [])
    await generation.until_ready()
    await asyncio.sleep(0.1)
    assert late.asked[0][1]["log_level"] == "debug"


@virtual_time
async def test_a_worker_that_is_ready_after_the_others_accept_accepts_too(fakes: Fakes) -> None:
    fakes.plays("web", Script(ready_after=5.0), slot=1)
    _, group = await began(fakes, accept=False, probation=True)
    await group.until_ready([0])
    first, late = fakes.of("web")
    assert not first.accepting
    await group.accept()
    group.end_probation()
    assert (first.accepting, late.accepting) == (True, False)
    await group.until_ready()
    await asyncio.sleep(0.1)
    assert late.accepting
    assert late.orders == ["accept"]


@virtual_time
async def test_workers_that_are_started_after_the_probation_accept_at_once(fakes: Fakes) -> None:
    fakes.plays("web", Script(dies_after=2.0), Script(), slot=1)
    _, group = await began(fakes, accept=False, probation=True)
    await group.until_ready()
    await group.accept()
    group.end_probation()
    await asyncio.sleep(4.0)
    assert [w.accepting for w in fakes.alive("web")] == [True, True]
    assert fakes.of("web")[2].orders == []


@virtual_time
async def test_with_a_health_check_a_worker_accepts_once_it_has_passed(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def why_unwell(*_: object) -> str:
        return "" if now() >= 3.0 else "GET / returned 503"

    monkeypatch.setattr("servd.supervisor.health.readiness.why_unwell", why_unwell)
    _, group = await began(fakes, "health.path = '/'")
    await asyncio.sleep(2.5)
    assert not fakes.accepting("web")
    await group.until_ready()
    assert [w.orders for w in fakes.of("web")] == [["accept"], ["accept"]]
    assert len(fakes.accepting("web")) == 2


@virtual_time
async def test_a_worker_that_does_not_accept_when_asked_is_killed(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def why_unwell(*_: object) -> str:
        return ""

    monkeypatch.setattr("servd.supervisor.health.readiness.why_unwell", why_unwell)
    fakes.plays("web", Script(answers=NEVER))
    generation, _ = await began(fakes, "health.path = '/'", probation=True)
    with pytest.raises(FailedStartError, match="no answer in 10 s"):
        await generation.until_ready()
    assert [w.sent for w in fakes.of("web")] == [[KILL], [KILL]]


@virtual_time
async def test_a_change_that_a_worker_does_not_take_is_told_with_its_number(fakes: Fakes) -> None:
    fakes.plays("web", Script(answers=NEVER), slot=1)
    generation, group = await began(fakes)
    await group.until_ready()
    with pytest.raises(FailedStartError, match="worker 1 did not apply the change: no answer"):
        await generation.adjust(changed(fakes, 'log.level = "debug"'))


# the end


@virtual_time
async def test_a_drain_returns_once_all_accept_no_more_and_ends_later(fakes: Fakes) -> None:
    fakes.plays("web", Script(closes_after=2.0, drains_for=9.0), slot=1)
    generation, group = await began(fakes)
    await group.until_ready()
    await generation.stop_accepting()
    assert now() == 3.0
    assert not fakes.accepting("web")
    assert (len(group.leaving), group.has_ended) == (1, False)
    await generation.wait_ended()
    assert now() == 10.0
    assert group.has_ended
    assert [w.sent for w in fakes.of("web")] == [[TERM], [TERM]]


@virtual_time
async def test_what_drains_for_too_long_is_killed(fakes: Fakes) -> None:
    fakes.plays("web", Script(drains_for=NEVER), slot=1)
    generation, group = await began(fakes, "timeouts.drain = 20")
    await group.until_ready()
    await generation.stop_accepting()
    await generation.wait_ended()
    assert now() == 1.0 + 20.0 + 5.0 + KILL_SECONDS
    assert [w.sent for w in fakes.of("web")] == [[TERM], [TERM, KILL]]
    (killed,) = fakes.logged(Event.WORKER_KILLED)
    assert (
        killed["reason"] == f"still running {20.0 + 5.0 + KILL_SECONDS:g} s after the stop request"
    )


@virtual_time
async def test_what_was_never_ready_gets_less_time_to_stop(fakes: Fakes) -> None:
    fakes.plays("web", Script(ready_after=NEVER, drains_for=NEVER), slot=1)
    generation, group = await began(fakes, "timeouts.drain = 20")
    await group.until_ready([0])
    await generation.stop_accepting()
    await generation.wait_ended()
    assert now() == 1.0 + UNREADY_STOP_SECONDS


@virtual_time
async def test_a_program_is_asked_with_its_own_signal_and_not_waited_for(fakes: Fakes) -> None:
    text = """
        [services.web]
        command = ["sleep", "9"]
        stop_signal = "SIGINT"
        timeouts.drain = 3
    """
    fakes.plays("web", Script(closes_after=2.0, drains_for=2.5))
    generation, group = await began(fakes, text=text)
    await group.until_ready()
    before = now()
    await generation.stop_accepting()
    assert now() == before
    await generation.wait_ended()
    assert fakes.of("web")[0].sent == [signal.SIGINT]


@virtual_time
async def test_a_drain_that_is_aborted_ends_at_once(fakes: Fakes) -> None:
    fakes.plays("web", Script(drains_for=NEVER))
    generation, group = await began(fakes)
    await group.until_ready()
    await generation.stop_accepting()
    await generation.abort_drain()
    assert now() == 1.1
    assert [w.orders for w in fakes.of("web")] == [["hurry"], ["hurry"]]
    assert generation.has_ended


@virtual_time
async def test_a_drain_that_cannot_be_aborted_is_killed(fakes: Fakes) -> None:
    fakes.plays("web", Script(drains_for=NEVER, answers="I shall not"))
    generation, group = await began(fakes)
    await group.until_ready()
    await generation.stop_accepting()
    await generation.abort_drain()
    assert now() == 1.0 + FORCED_STOP_SECONDS
    assert [w.sent for w in fakes.of("web")] == [[TERM, KILL], [TERM, KILL]]


@virtual_time
async def test_a_death_during_the_drain_is_no_failure(fakes: Fakes) -> None:
    fakes.plays("web", Script(drains_for=9.0, dies_after=3.0, status=5), slot=1)
    generation, group = await began(fakes)
    await group.until_ready()
    await generation.stop_accepting()
    await generation.wait_ended()
    assert not fakes.logged(Event.WORKER_DIED)
    assert generation.record.last_exit is None
    assert [e["exit_status"] for e in fakes.logged(Event.WORKER_ENDED)] == [0, 5]


@virtual_time
async def test_killing_ends_every_worker_at_once(fakes: Fakes) -> None:
    fakes.plays("web", Script(drains_for=NEVER))
    generation, group = await began(fakes)
    await group.until_ready()
    group.kill()
    await generation.stop_accepting()
    await generation.wait_ended()
    assert now() == 1.0
    assert not fakes.alive("web")
    assert len(fakes.of("web")) == 2


# how many


@virtual_time
async def test_slots_that_are_drained_stay_empty_until_they_are_started_again(
    fakes: Fakes,
) -> None:
    _, group = await began(fakes)
    await group.until_ready()
    await group.drain_slots([0])
    await asyncio.sleep(10.0)
    assert [w.slot for w in fakes.alive("web")] == [1]
    await group.restart_slots([0])
    assert [w.slot for w in group.processes] == [0, 1]
    assert group.is_ready


@virtual_time
async def test_filling_moves_nothing_where_the_lower_slots_are_ready(fakes: Fakes) -> None:
    _, group = await began(fakes)
    await group.until_ready()
    await group.fill(1)
    assert len(fakes.of("web")) == 2


@virtual_time
async def test_filling_fails_where_the_lower_slot_does_not_start(fakes: Fakes) -> None:
    fakes.plays("web", DIES, slot=0)
    _, group = await began(fakes, "restart.backoff = 100", "restart.backoff_max = 100")
    await group.until_ready([1])
    with pytest.raises(FailedStartError, match="worker 0: broken"):
        await group.fill(1)
    assert [w.slot for w in fakes.accepting("web")] == [1]


@virtual_time
async def test_a_system_that_cannot_start_a_program_is_a_death_like_any_other(
    fakes: Fakes,
) -> None:
    missing = replace(Script(), spawned=FileNotFoundError(2, "No such file", "/nowhere"))
    fakes.plays("web", missing)
    generation, _ = await began(fakes, probation=True)
    with pytest.raises(FailedStartError, match=r"could not be started: No such file \(/nowhere\)"):
        await generation.until_ready()
    assert not fakes.of("web")


@virtual_time
async def test_a_shortage_of_the_system_is_waited_for(fakes: Fakes) -> None:
    """Whatever `restart` says: it is no fault of the program."""
    full = Script(spawned=OSError(24, "Too many open files"))
    fakes.plays("web", full, full, Script(), slot=1)
    generation, group = await began(fakes, "restart.give_up_after = 1")
    await generation.until_ready()
    assert group.is_ready
    assert generation.record.start_failures == 2
