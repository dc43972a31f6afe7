"""Replacing workers that run: one at a time, each by one that is ready before it goes."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest

from servd.core.events import Event
from servd.plan.model import ServicePlan
from servd.wire.graces import ABORT_SECONDS

from support.fake_worker import NEVER, Fakes, Script
from support.virtual_time import now, virtual_time

APP = """
[services.web]
app = "main:app"
listen = "127.0.0.1:0"
"""

DIES = Script(dies_after=0.5)
ABORT, TERM, KILL = signal.SIGABRT, signal.SIGTERM, signal.SIGKILL


def text(*keys: str, workers: int = 1) -> str:
    return "\n".join((APP, f"workers = {workers}", *keys))


def pauses(times: list[float]) -> list[float]:
    """Between a start and the death before it, where each worker lives for half a second."""
    return [round(b - a - 0.5, 6) for a, b in itertools.pairwise(times)]


@virtual_time
async def test_workers_are_recycled_one_at_a_time_and_a_successor_is_ready_first(
    fakes: Fakes,
) -> None:
    _, group = await fakes.begin(text(workers=3))
    await group.until_ready()
    for worker in fakes.of("web"):
        worker.ask_to_be_recycled()
    await asyncio.sleep(10.0)
    assert fakes.times("web", "started")[3:] == [1.0, 2.5, 4.0]
    assert fakes.times("web", "signalled") == [2.0, 3.5, 5.0]
    assert fakes.least_accepting("web", since=1.0) == 3
    assert [w.slot for w in group.processes] == [0, 1, 2]
    recycled = fakes.logged(Event.WORKER_RECYCLED, reason="max_requests")
    assert [e["worker"] for e in recycled] == [0, 1, 2]
    assert group.launch.context.counters.restarts == {("web", "max_requests"): 3}


@virtual_time
async def test_a_worker_is_recycled_once_however_often_it_asks(fakes: Fakes) -> None:
    _, group = await fakes.begin(text())
    await group.until_ready()
    for _ in range(3):
        fakes.of("web")[0].ask_to_be_recycled()
        await asyncio.sleep(0.3)
    await asyncio.sleep(10.0)
    assert len(fakes.of("web")) == 2


@virtual_time
async def test_a_worker_whose_successor_dies_stays_and_pauses_grow(fakes: Fakes) -> None:
    fakes.plays("web", Script(), DIES)
    _, group = await fakes.begin(text())
    await group.until_ready()
    fakes.of("web")[0].ask_to_be_recycled()
    await asyncio.sleep(16.0)
    assert pauses(fakes.times("web", "started")[1:]) == [0.5, 1.0, 2.0, 4.0]
    assert fakes.accepting("web") == [fakes.of("web")[0]]
    assert not fakes.of("web")[0].signals
    fakes.plays("web", Script())
    await asyncio.sleep(20.0)
    assert fakes.accepting("web") == [fakes.of("web")[-1]]
    assert fakes.least_accepting("web", since=1.0) == 1


@virtual_time
async def test_deaths_of_successors_are_no_fault_of_the_slot(fakes: Fakes) -> None:
    """A worker that dies after many failed attempts is replaced at once."""
    fakes.plays("web", Script(dies_after=9.0), DIES)
    _, group = await fakes.begin(text())
    await group.until_ready()
    fakes.of("web")[0].ask_to_be_recycled()
    await asyncio.sleep(7.0)
    assert group.watcher.attempts[0].failures == 4
    assert not group.watcher.history
    fakes.plays("web", Script())
    await asyncio.sleep(1.5)
    assert fakes.times("web", "started")[-1] == 9.0
    await group.until_ready()
    assert len(fakes.alive("web")) == 1


@virtual_time
async def test_a_successor_that_is_given_up_is_tried_again_after_the_longest_pause(
    fakes: Fakes,
) -> None:
    fakes.plays("web", Script(), DIES)
    _, group = await fakes.begin(text("restart.give_up_after = 2", "restart.backoff_max = 40"))
    await group.until_ready()
    fakes.of("web")[0].ask_to_be_recycled()
    await asyncio.sleep(60.0)
    assert pauses(fakes.times("web", "started")[1:]) == [0.5, 40.0]
    kept = fakes.logged(Event.WORKER_KEPT, retry_in=40.0)
    assert len(kept) == 2
    assert group.is_ready
    assert not group.given_up


@virtual_time
async def test_a_worker_that_asks_before_it_is_ready_is_recycled_once_it_is(fakes: Fakes) -> None:
    _, group = await fakes.begin(text())
    await asyncio.sleep(0.3)
    fakes.of("web")[0].ask_to_be_recycled()
    await asyncio.sleep(0.5)
    assert len(fakes.of("web")) == 1
    await group.until_ready()
    await asyncio.sleep(2.0)
    assert fakes.times("web", "started") == [0.0, 1.0]


@virtual_time
async def test_a_generation_on_probation_recycles_nothing_yet(fakes: Fakes) -> None:
    _, group = await fakes.begin(text(), probation=True)
    await group.until_ready()
    fakes.of("web")[0].ask_to_be_recycled()
    await asyncio.sleep(10.0)
    assert len(fakes.of("web")) == 1
    group.end_probation()
    await asyncio.sleep(2.0)
    assert [w.is_alive() for w in fakes.of("web")] == [False, True]


@virtual_time
async def test_a_worker_that_dies_while_its_successor_starts_is_not_replaced_twice(
    fakes: Fakes,
) -> None:
    fakes.plays("web", Script(dies_after=3.5), Script())
    _, group = await fakes.begin(text())
    await group.until_ready()
    await asyncio.sleep(2.0)
    fakes.of("web")[0].ask_to_be_recycled()
    await asyncio.sleep(10.0)
    assert len(fakes.of("web")) == 2
    assert group.is_ready


@virtual_time
async def test_the_end_of_a_generation_ends_a_successor_too(fakes: Fakes) -> None:
    fakes.plays("web", Script(), Script(ready_after=30.0))
    generation, group = await fakes.begin(text())
    await group.until_ready()
    fakes.of("web")[0].ask_to_be_recycled()
    await asyncio.sleep(1.0)
    assert len(fakes.alive("web")) == 2
    await generation.stop_accepting()
    await generation.wait_ended()
    await asyncio.sleep(100.0)
    assert len(fakes.of("web")) == 2
    assert not fakes.alive("web")


@virtual_time
async def test_a_scale_down_takes_a_worker_out_of_the_queue(fakes: Fakes) -> None:
    _, group = await fakes.begin(text(workers=2))
    await group.until_ready()
    for worker in fakes.of("web"):
        worker.ask_to_be_recycled()
    group.resize(1)
    await group.end_surplus()
    await asyncio.sleep(10.0)
    assert [w.slot for w in fakes.of("web")] == [0, 1, 0]
    assert len(fakes.alive("web")) == 1


@virtual_time
async def test_a_program_with_an_address_of_its_own_ends_before_its_successor(
    fakes: Fakes,
) -> None:
    alone = """
        [services.web]
        command = ["sleep", "9"]
        listen = "127.0.0.1:4567"
        activation = "self"
        ready = "notify"
        limits.max_age = 10
        """
    _, group = await fakes.begin(alone)
    await group.until_ready()
    await asyncio.sleep(13.0)
    assert [n.what for n in fakes.notes if n.what in ("started", "reaped")] == [
        "started", "reaped", "started",
    ]  # fmt: skip
    assert fakes.times("web", "started") == [0.0, 11.5]
    assert group.is_ready


# limits


@virtual_time
async def test_a_worker_is_recycled_at_its_age_counted_from_when_it_was_ready(
    fakes: Fakes,
) -> None:
    fakes.plays("web", Script(ready_after=5.0), Script())
    _, group = await fakes.begin(text("limits.max_age = 100"))
    await group.until_ready()
    await asyncio.sleep(99.0)
    assert len(fakes.of("web")) == 1
    await asyncio.sleep(2.0)
    assert fakes.times("web", "started") == [0.0, 105.0]
    (event,) = fakes.logged(Event.WORKER_TO_BE_RECYCLED)
    assert (event["reason"], event["seconds"]) == ("max_age", 105.0)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """The memory of every worker: from when on it is how much."""
    figures: list[tuple[float, int]] = []

    async def over(_: object, pid: int, limit: int) -> int:
        bytes_ = max((figure for figure in figures if figure[0] <= now()), default=(0, 0))[1]
        return bytes_ if bytes_ > limit else 0

    monkeypatch.setattr("servd.supervisor.health.monitor.asyncio.to_thread", over)
    return figures


@virtual_time
async def test_a_worker_over_its_memory_is_recycled(
    fakes: Fakes, used: list[tuple[float, int]]
) -> None:
    used += [(0.0, 1), (9.5, 5_000_000), (11.2, 1)]
    _, group = await fakes.begin(text('limits.memory = "1MB"'))
    await group.until_ready()
    await asyncio.sleep(20.0)
    assert fakes.times("web", "started") == [0.0, 10.0]
    (event,) = fakes.logged(Event.WORKER_TO_BE_RECYCLED, reason="memory")
    assert event["bytes"] == 5_000_000


@virtual_time
async def test_a_worker_that_starts_over_its_memory_is_left_alone(
    fakes: Fakes, used: list[tuple[float, int]]
) -> None:
    used += [(0.0, 5_000_000)]
    _, group = await fakes.begin(text('limits.memory = "1MB"'))
    await group.until_ready()
    await asyncio.sleep(100.0)
    assert len(fakes.of("web")) == 1
    assert len(fakes.logged(Event.WORKER_NOT_RECYCLED)) == 1


# hung


@pytest.mark.parametrize(
    ("aborts", "signals"),
    [(True, [(8.0, ABORT)]), (False, [(8.0, ABORT), (8.0 + ABORT_SECONDS, KILL)])],
)
def test_a_hung_worker_writes_its_stack_and_is_replaced(
    fakes: Fakes, aborts: bool, signals: list[tuple[float, signal.Signals]]
) -> None:
    @virtual_time
    async def test() -> None:
        fakes.plays("web", Script(signs_every=0.5, signs_until=5.0, aborts=aborts), Script())
        _, group = await fakes.begin(text("watchdog = 3"))
        await asyncio.sleep(9.9)
        hung = fakes.of("web")[0]
        assert hung.signals == signals
        assert hung.kill_reason == "watchdog"
        (event,) = fakes.logged(Event.WORKER_DIED)
        assert event["reason"] == "was unresponsive for 3 s"
        assert event["next_action"] == "restarting"
        assert len(fakes.of("web")) == 2
        assert group.launch.context.counters.restarts == {("web", "watchdog"): 1}
        await group.until_ready()

    test()


@virtual_time
async def test_a_worker_that_drains_is_not_taken_for_hung(fakes: Fakes) -> None:
    fakes.plays("web", Script(signs_every=0.5, signs_until=5.0, drains_for=20.0))
    generation, group = await fakes.begin(text("watchdog = 3"))
    await group.until_ready()
    await asyncio.sleep(4.5)
    await generation.stop_accepting()
    await generation.wait_ended()
    assert fakes.of("web")[0].sent == [TERM]


# unwell

Answers = Callable[[], str]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[int, Answers]:
    """What a probe of the first, second, ... worker finds; nothing is wrong with the others."""
    found: dict[int, Answers] = {}
    known: list[object] = []

    async def why_unwell(process: object, _: object) -> str:
        if process not in known:
            known.append(process)
        return found.get(known.index(process), str)()

    monkeypatch.setattr("servd.supervisor.health.monitor.why_unwell", why_unwell)
    monkeypatch.setattr("servd.supervisor.health.readiness.why_unwell", why_unwell)
    return found


HEALTH = ("health.interval = 2", "health.failures = 2")


@virtual_time
async def test_an_unwell_worker_is_replaced_by_one_that_is_ready(
    fakes: Fakes, answers: dict[int, Answers]
) -> None:
    answers[0] = lambda: "GET /healthz returned 503" if now() > 6.0 else ""
    _, group = await fakes.begin(text(*HEALTH))
    await group.until_ready()
    await asyncio.sleep(8.5)
    assert now() == 9.5
    assert group.unwell == "worker 0: GET /healthz returned 503"
    assert (group.ready_count, group.is_ready) == (0, False)
    await asyncio.sleep(2.0)
    assert [w.accepting for w in fakes.of("web")] == [False, True]
    assert fakes.times("web", "started") == [0.0, 9.0]
    assert (group.unwell, group.is_ready) == ("", True)
    (event,) = fakes.logged(Event.WORKER_TO_BE_RECYCLED)
    assert (event["reason"], event["error"]) == ("health", "GET /healthz returned 503")


@virtual_time
async def test_a_worker_that_only_is_not_ready_is_shown_and_stays(
    fakes: Fakes, answers: dict[int, Answers]
) -> None:
    answers[0] = lambda: "GET /readyz returned 503" if 6.0 < now() < 60.0 else ""
    _, group = await fakes.begin(text(*HEALTH))
    await group.until_ready()
    assert group.plan.health is not None
    group.learn(replace(group.plan, health=replace(group.plan.health, only_readiness=True)))
    await asyncio.sleep(40.0)
    assert group.unwell == "worker 0: GET /readyz returned 503"
    assert group.ready_count == 0
    await asyncio.sleep(30.0)
    assert (group.unwell, group.is_ready) == ("", True)
    assert fakes.times("web", "started") == [0.0]
    (event,) = fakes.logged(Event.WORKER_NOT_READY)
    assert event["error"] == "GET /readyz returned 503"
    assert len(fakes.logged(Event.WORKER_HEALTHY_AGAIN)) == 1


@virtual_time
async def test_a_worker_that_recovers_while_its_successors_die_stays(
    fakes: Fakes, answers: dict[int, Answers]
) -> None:
    answers[0] = lambda: "slow" if 6.0 < now() < 14.0 else ""
    fakes.plays("web", Script(), DIES)
    _, group = await fakes.begin(text(*HEALTH))
    await group.until_ready()
    await asyncio.sleep(60.0)
    assert fakes.accepting("web") == [fakes.of("web")[0]]
    assert len(fakes.logged(Event.WORKER_HEALTHY_AGAIN)) == 1
    assert fakes.times("web", "started")[-1] <= 15.0
    assert group.is_ready


@virtual_time
async def test_a_worker_that_recovers_is_replaced_where_its_successor_is_on_its_way(
    fakes: Fakes, answers: dict[int, Answers]
) -> None:
    answers[0] = lambda: "slow" if 6.0 < now() < 10.0 else ""
    fakes.plays("web", Script(), Script(ready_after=5.0))
    await fakes.begin(text(*HEALTH))
    await asyncio.sleep(20.0)
    assert fakes.times("web", "signalled") == [14.0]
    assert [w.is_alive() for w in fakes.of("web")] == [False, True]


@virtual_time
async def test_without_a_health_check_nothing_is_unwell_any_more(
    fakes: Fakes, answers: dict[int, Answers]
) -> None:
    answers[0] = lambda: "slow" if now() > 6.0 else ""
    fakes.plays("web", Script(), DIES)
    generation, group = await fakes.begin(text(*HEALTH))
    await group.until_ready()
    await asyncio.sleep(9.0)
    assert group.unwell
    plan: ServicePlan = replace(generation.plan, health=None)
    await generation.adjust(plan)
    assert not group.unwell
    assert group.is_ready
    await asyncio.sleep(60.0)
    assert fakes.accepting("web") == [fakes.of("web")[0]]


@virtual_time
async def test_a_starting_worker_that_never_gets_well_is_killed(
    fakes: Fakes, answers: dict[int, Answers]
) -> None:
    answers[0] = lambda: "GET /healthz returned 500"
    fakes.plays("web", Script(), Script(ready_after=NEVER))
    _, group = await fakes.begin(text(*HEALTH, "health.start_failures = 3"))
    await asyncio.sleep(8.0)
    assert fakes.of("web")[0].sent == [KILL]
    (event,) = fakes.logged(Event.WORKER_DIED)
    assert event["reason"] == "was not healthy within 6 s: GET /healthz returned 500"
    assert not group.is_ready


@virtual_time
async def test_a_worker_that_answers_nothing_well_ends_before_its_successor_starts(
    fakes: Fakes,
) -> None:
    """Two may have no room on its GPU, and it would only go on failing."""
    _, group = await fakes.begin(text())
    await group.until_ready()
    fakes.of("web")[0].ask_to_be_recycled("cuda")
    await asyncio.sleep(10.0)
    assert fakes.times("web", "signalled") == [1.0]
    assert fakes.times("web", "started") == [0.0, 1.5]
    assert group.launch.context.counters.restarts == {("web", "cuda"): 1}


@virtual_time
async def test_its_requests_do_not_hold_up_the_successor_for_long(fakes: Fakes) -> None:
    fakes.plays("web", Script(drains_for=NEVER))
    _, group = await fakes.begin(text('timeouts.drain = "10m"'))
    await group.until_ready()
    (worker,) = fakes.of("web")
    worker.ask_to_be_recycled("unwell")
    await asyncio.sleep(30.0)
    assert "hurry" in worker.orders
    assert fakes.times("web", "died") == [11.1]
    assert fakes.times("web", "started")[1:] == [11.1]


@virtual_time
async def test_what_makes_a_worker_useless_comes_before_what_it_waits_for(fakes: Fakes) -> None:
    _, group = await fakes.begin(text(workers=2))
    await group.until_ready()
    first, second = fakes.of("web")
    first.ask_to_be_recycled()
    second.ask_to_be_recycled()
    second.ask_to_be_recycled("cuda")
    second.ask_to_be_recycled()
    await asyncio.sleep(10.0)
    assert group.launch.context.counters.restarts == {
        ("web", "max_requests"): 1,
        ("web", "cuda"): 1,
    }
