"""Slots that are filled, after pauses that grow, and with a limit on how many start at once."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace

import pytest

from servd.core.events import Event

from support.fake_worker import NEVER, Fakes, Fleet, Script
from support.virtual_time import now, virtual_time

APP = """
[services.web]
app = "main:app"
listen = "127.0.0.1:0"
"""

YOUNG = Script(ready_after=NEVER, dies_after=0.5)
CRASH = Script(ready_after=1.0, dies_after=2.0)


def text(*keys: str) -> str:
    return "\n".join((APP, *keys))


def pauses(fakes: Fakes) -> list[float]:
    """Between each death and the start that follows it."""
    deaths, starts = fakes.times("web", "reaped"), fakes.times("web", "started")
    return [round(b - a, 6) for a, b in zip(deaths, starts[1:], strict=False)]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (YOUNG, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]),
        (CRASH, [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]),
    ],
)
def test_pauses_grow_from_death_to_death(
    fakes: Fakes, script: Script, expected: list[float]
) -> None:
    fakes.plays("web", script)

    @virtual_time
    async def test() -> None:
        await fakes.begin(APP)
        await asyncio.sleep(130.0)
        assert pauses(fakes)[:8] == expected

    test()


@virtual_time
async def test_a_worker_that_proved_itself_starts_the_pauses_from_the_beginning(
    fakes: Fakes,
) -> None:
    fakes.plays("web", *[YOUNG] * 4, Script(dies_after=61.0), YOUNG, YOUNG)
    _, group = await fakes.begin(APP)
    await asyncio.sleep(10.0)
    assert pauses(fakes) == [0.5, 1.0, 2.0, 4.0]
    assert group.failed_lately(3)
    await asyncio.sleep(59.7)
    assert not group.failed_lately(3)
    await asyncio.sleep(5.2)
    assert pauses(fakes)[4:] == [0.0, 1.0, 2.0]


@virtual_time
async def test_each_slot_has_pauses_of_its_own(fakes: Fakes) -> None:
    fakes.plays("web", YOUNG, slot=0)
    _, group = await fakes.begin(text("workers = 2"))
    await asyncio.sleep(20.0)
    fakes.plays("web", Script(), slot=1)
    fakes.of("web", slot=1)[0].die(9)
    await asyncio.sleep(0.1)
    assert fakes.of("web", slot=1)[-1].started_at == pytest.approx(1020.0)
    assert group.watcher.history[1].failures == 1
    assert group.pausing


@virtual_time
async def test_giving_up_leaves_the_slot_empty_until_it_is_tried_again(fakes: Fakes) -> None:
    fakes.plays("web", YOUNG)
    _, group = await fakes.begin(text("restart.give_up_after = 3"))
    await asyncio.sleep(500.0)
    assert len(fakes.of("web")) == 3
    assert group.given_up
    assert not group.pausing
    fakes.plays("web", Script())
    group.retry()
    assert not group.given_up
    await group.until_ready()
    assert now() == 501.0


@pytest.mark.parametrize(
    ("policy", "script", "starts"),
    [
        ("always", Script(dies_after=2.0, status=0), 2),
        ("on-failure", Script(dies_after=2.0, status=0), 1),
        ("on-failure", Script(dies_after=2.0, status=7), 2),
        ("on-failure", Script(ready_after=NEVER, dies_after=2.0, status=0), 2),
        ("never", Script(dies_after=2.0, status=7), 1),
    ],
)
def test_a_policy_says_which_deaths_are_followed_by_a_start(
    fakes: Fakes, policy: str, script: Script, starts: int
) -> None:
    fakes.plays("web", script, Script())

    @virtual_time
    async def test() -> None:
        _, group = await fakes.begin(text(f'restart.policy = "{policy}"'))
        await asyncio.sleep(10.0)
        assert len(fakes.of("web")) == starts
        assert group.given_up == (starts == 1)

    test()


@virtual_time
async def test_a_retry_ends_a_pause_and_forgets_the_deaths(fakes: Fakes) -> None:
    fakes.plays("web", *[YOUNG] * 6, Script())
    _, group = await fakes.begin(APP)
    await asyncio.sleep(30.0)
    assert len(fakes.of("web")) == 6
    group.retry()
    await asyncio.sleep(1.1)
    assert len(fakes.of("web")) == 7
    assert not group.watcher.history
    assert group.is_ready


@virtual_time
async def test_nothing_is_retried_where_all_is_well(fakes: Fakes) -> None:
    fakes.plays("web", CRASH, Script())
    _, group = await fakes.begin(APP)
    await asyncio.sleep(10.0)
    assert group.watcher.history
    group.retry()
    assert group.watcher.history


@pytest.mark.parametrize(("code", "starts"), [(errno.EMFILE, 4), (errno.ENOENT, 1)])
def test_a_system_without_room_is_asked_again_whatever_the_policy_gives_up(
    fakes: Fakes, code: int, starts: int
) -> None:
    failing = Script(spawned=OSError(code, "no"))
    fakes.plays("web", failing, failing, failing, Script())

    @virtual_time
    async def test() -> None:
        _, group = await fakes.begin(text("restart.give_up_after = 1"))
        await asyncio.sleep(30.0)
        died = fakes.logged(Event.WORKER_DIED, pid=0, exit_status=-1)
        assert len(died) == min(starts, 3)
        assert group.is_ready == (starts == 4)

    test()


# how many start at once


@virtual_time
async def test_workers_start_in_the_order_of_their_slots_as_the_limit_allows(
    fakes: Fakes,
) -> None:
    _, group = await fakes.begin(text("workers = 5"), limit=2)
    await group.until_ready()
    assert fakes.times("web", "started") == [0.0, 0.0, 1.0, 1.0, 2.0]
    assert [w.slot for w in fakes.of("web")] == [0, 1, 2, 3, 4]


@virtual_time
async def test_a_worker_that_dies_or_is_late_gives_its_permit_back(fakes: Fakes) -> None:
    fakes.plays("web", YOUNG, slot=0)
    fakes.plays("web", Script(ready_after=NEVER), slot=1)
    keys = ("workers = 3", "timeouts.startup = 4", "restart.backoff = 100",
            "restart.backoff_max = 100")  # fmt: skip
    await fakes.begin(text(*keys), limit=1)
    await asyncio.sleep(10.0)
    assert [(w.slot, w.started_at - 1000.0) for w in fakes.of("web")] == [
        (0, 0.0), (1, 0.5), (2, 4.5),
    ]  # fmt: skip


@virtual_time
async def test_the_limit_holds_over_all_services(fakes: Fakes) -> None:
    fleet = Fleet(fakes, limit=1)
    await fleet.start(APP + APP.replace("web", "api"))
    assert sorted(fakes.times("web", "started") + fakes.times("api", "started")) == [0.0, 1.0]


@virtual_time
async def test_a_higher_limit_starts_more_at_once(fakes: Fakes) -> None:
    fleet = Fleet(fakes, limit=1)
    fakes.plays("web", Script(ready_after=10.0))
    starting = asyncio.ensure_future(fleet.start(text("workers = 4")))
    await asyncio.sleep(1.0)
    fleet.context.start_limiter.change(3)
    await starting
    assert fakes.times("web", "started") == [0.0, 1.0, 1.0, 10.0]


@virtual_time
async def test_an_end_starts_nothing_that_was_still_waiting(fakes: Fakes) -> None:
    generation, group = await fakes.begin(text("workers = 3"), limit=1)
    await group.until_ready([0])
    await generation.stop_accepting()
    await generation.wait_ended()
    await asyncio.sleep(60.0)
    assert len(fakes.of("web")) == 2
    assert not fakes.alive("web")


@virtual_time
async def test_a_pause_that_ends_after_the_watcher_starts_nothing(fakes: Fakes) -> None:
    fakes.plays("web", replace(YOUNG, dies_after=0.1))
    generation, _ = await fakes.begin(APP)
    await asyncio.sleep(0.2)
    await generation.stop_accepting()
    await generation.wait_ended()
    await asyncio.sleep(60.0)
    assert len(fakes.of("web")) == 1
