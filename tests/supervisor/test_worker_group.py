"""The workers of one generation: how they become ready, catch up, and end."""

from __future__ import annotations

import asyncio
import signal

import pytest

from servd.plan.model import ServicePlan
from servd.supervisor.exits import FailedStartError
from servd.supervisor.generation import Generation
from servd.supervisor.service import ManagedService
from servd.supervisor.worker_group import WorkerGroup

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
    """A generation whose workers are on their way."""
    (plan,) = fakes.plan("\n".join((text, *keys))).services
    context = fakes.context()
    generation = ManagedService(plan, context, lambda: 1).new_generation(plan)
    context.arbiter.begin()
    generation.bind()
    return generation, await generation.begin(accept=accept, probation=probation)


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
    with pytest.raises(FailedStartError, match="^worker 1: broken$") as raised:
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
    assert 1.5 + 0.45 <= now() <= 1.5 + 0.55
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
