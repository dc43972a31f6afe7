"""Workers start one after the other on a GPU, and only where its memory is measured as free."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import pytest

from servd.core.events import Event
from servd.supervisor.apply.transaction import ApplyError
from servd.supervisor.gpus import GpuRoom
from servd.wire.gpus import Gpu, GpuHolder, GpuSnapshot

from support.fake_worker import Fakes, FakeWorker, Fleet, Script
from support.virtual_time import now, virtual_time

GIB = 1 << 30
TOTAL = 80 * GIB
STRANGER = 4711
SECOND = 1.0


class Driver:
    """A driver that tells every second what is held: what `holds` says of each living worker, from
    its readiness on (or from its start), and what strangers hold.
    """

    def __init__(self, fakes: Fakes, count: int = 1) -> None:
        self.fakes = fakes
        self.gpus = tuple(Gpu(f"GPU-{n}", str(n), total=TOTAL) for n in range(count))
        self.strangers: dict[tuple[str, int], int] = {}
        self.holds: Callable[[FakeWorker], int] = lambda worker: 0
        self.names_processes = True
        fakes.gpus = self.gpus

    def snapshot(self) -> GpuSnapshot:
        return GpuSnapshot(
            tuple(map(self._with_holders, self.gpus)), names_processes=self.names_processes
        )

    def _with_holders(self, gpu: Gpu) -> Gpu:
        holders = [
            GpuHolder(pid, memory, "python")
            for (name, pid), memory in self.strangers.items()
            if name == gpu.id
        ]
        holders += [
            GpuHolder(worker.pid, self.holds(worker), "python")
            for worker in self.fakes.workers
            if worker.is_alive() and gpu.id in worker.launch.gpus_of(worker.slot)
        ]
        used = sum(holder.memory or 0 for holder in holders)
        return dataclasses.replace(gpu, free=max(0, TOTAL - used), holders=tuple(holders))

    def feed(self, fleet: Fleet) -> None:
        """Tells a supervisor now and every second."""
        room = fleet.context.workers.gpus
        room.take(self.snapshot())
        asyncio.get_running_loop().call_later(SECOND, self.feed, fleet)


def ready_ones(much: int) -> Callable[[FakeWorker], int]:
    """Each worker takes memory just before it is ready."""
    return lambda worker: much if worker.was_ready else 0


def service(name: str, gpus: str, *keys: str) -> str:
    lines = (f"[services.{name}]", 'app = "main:app"', 'listen = "127.0.0.1:0"', f"gpus = {gpus}")
    return "\n".join((*lines, *keys, ""))


SMALL = service("a", '{ share = 0.2, memory = "9GiB" }')
LLM = service("llm", '{ memory = "70GiB" }', "timeouts.startup = 30")
PAIR = service("a", '{ share = 0.4, memory = "20GiB" }', "workers = 2") + service(
    "b", '{ share = 0.2, memory = "9GiB" }'
)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110  # the clock is virtual
        await asyncio.sleep(0.1)


@virtual_time
async def test_workers_start_one_after_the_other_on_a_gpu(fakes: Fakes) -> None:
    Driver(fakes).feed(fleet := Fleet(fakes))
    fakes.plays("a", Script(ready_after=5.0))
    assert await fleet.start(PAIR) == {}
    assert sorted([*fakes.times("a", "started"), *fakes.times("b", "started")]) in (
        [0.0, 5.0, 10.0],
        [0.0, 5.0, 6.0],
        [0.0, 1.0, 6.0],
    )
    reasons = {event["reason"] for event in fakes.logged(Event.WORKER_WAITS_FOR_GPU)}
    assert reasons
    assert all(reason.startswith("GPU 0: waits until ") for reason in reasons)


@virtual_time
async def test_shares_without_memory_start_at_once(fakes: Fakes) -> None:
    Driver(fakes).feed(fleet := Fleet(fakes))
    fakes.plays("a", Script(ready_after=5.0))
    await fleet.start(service("a", "0.25", "workers = 4"))
    assert fakes.times("a", "started") == [0.0] * 4


@virtual_time
async def test_a_peak_falls_with_the_definition_that_caused_it(fakes: Fakes) -> None:
    driver = Driver(fakes)
    driver.holds = ready_ones(60 * GIB)
    driver.feed(fleet := Fleet(fakes))
    fakes.plays("a", Script(ready_after=2.0))
    await fleet.start(service("a", '{ share = 0.2, memory = "9GiB" }'))
    peaks = fleet.context.workers.gpus.peaks
    await until(lambda: peaks.get("a") == 60 * GIB)
    driver.holds = ready_ones(8 * GIB)
    await asyncio.sleep(5)
    assert peaks == {"a": 60 * GIB}, "the same workers may take that much again"
    await fleet.apply(service("a", '{ share = 0.2, memory = "9GiB" }', 'env.SMALL = "1"'))
    await until(lambda: peaks.get("a") == 8 * GIB)


@virtual_time
async def test_other_gpus_do_not_wait(fakes: Fakes) -> None:
    Driver(fakes, 2).feed(fleet := Fleet(fakes))
    fakes.plays("a", Script(ready_after=5.0))
    await fleet.start(service("a", '{ memory = "20GiB" }', "workers = 2"))
    assert fakes.times("a", "started") == [0.0, 0.0]


@virtual_time
async def test_the_turn_is_not_part_of_the_startup_time(fakes: Fakes) -> None:
    Driver(fakes).feed(fleet := Fleet(fakes))
    fakes.plays("a", Script(ready_after=8.0))
    text = service("a", '{ share = 0.2, memory = "9GiB" }', "workers = 3", "timeouts.startup = 10")
    assert await fleet.start(text) == {}
    await until(lambda: fleet["a"].is_ready)
    assert fakes.times("a", "started") == [0.0, 8.0, 16.0]


@virtual_time
async def test_a_worker_waits_until_a_stranger_has_left(fakes: Fakes) -> None:
    driver = Driver(fakes)
    driver.strangers["GPU-0", STRANGER] = 58 * GIB
    driver.feed(fleet := Fleet(fakes))
    fakes.plays("llm", Script(ready_after=5.0))
    starting = asyncio.create_task(fleet.start(LLM))
    await asyncio.sleep(7.5)
    reason = f"GPU 0: 22 of 70 GiB free, 58 GiB held by pid {STRANGER} (python, not servd's)"
    assert (fleet["llm"].state, fleet["llm"].error) == ("starting", f"worker 0: {reason}")
    assert not fakes.of("llm")
    driver.strangers["GPU-0", STRANGER] = 59 * GIB
    await asyncio.sleep(2)
    assert "21 of 70 GiB free" in fleet["llm"].error
    (said,) = fakes.logged(Event.WORKER_WAITS_FOR_GPU)
    assert (said["service"], said["worker"], said["reason"]) == ("llm", 0, reason)
    driver.strangers.clear()
    left = now()
    await until(lambda: fakes.of("llm"))
    assert fleet["llm"].error == ""
    assert await starting == {}
    (started,) = fakes.times("llm", "started")
    assert started - left <= 1.0
    assert (fleet["llm"].state, fleet["llm"].error) == ("ready", "")


@virtual_time
async def test_room_that_never_comes_is_a_failed_start(fakes: Fakes) -> None:
    driver = Driver(fakes)
    driver.strangers["GPU-0", STRANGER] = 58 * GIB
    driver.feed(fleet := Fleet(fakes))
    failed = await fleet.start(LLM)
    assert now() == 30.0
    assert failed["llm"].startswith(
        "worker 0: could not be started: no room for 30 s (timeouts.startup): GPU 0: 22 of 70 GiB"
    )
    await until(lambda: fleet["llm"].state == "backoff")
    driver.strangers.clear()
    await until(lambda: fleet["llm"].state == "ready")


@virtual_time
async def test_a_start_fails_in_time_though_no_more_figures_come(fakes: Fakes) -> None:
    driver = Driver(fakes)
    driver.strangers["GPU-0", STRANGER] = 58 * GIB
    fleet = Fleet(fakes)
    fleet.context.workers.gpus.take(driver.snapshot())
    failed = await fleet.start(LLM.replace("startup = 30", "startup = 23.5"))
    assert now() == 23.5
    assert "no room for 23.5 s" in failed["llm"]


@virtual_time
async def test_memory_is_waited_for_once_it_is_the_workers_turn(fakes: Fakes) -> None:
    driver = Driver(fakes)
    driver.feed(fleet := Fleet(fakes))
    fakes.plays("a", Script(ready_after=8.0))
    b = service("b", '{ share = 0.4, memory = "30GiB" }', "timeouts.startup = 10")
    starting = asyncio.create_task(fleet.start(SMALL + b))
    await until(lambda: fakes.of("a"))
    driver.strangers["GPU-0", STRANGER] = 60 * GIB
    await asyncio.sleep(15)
    assert not fakes.of("b")
    driver.strangers.clear()
    assert await starting == {}


@virtual_time
async def test_who_waits_holds_up_nobody(fakes: Fakes) -> None:
    driver = Driver(fakes)
    driver.strangers["GPU-0", STRANGER] = 58 * GIB
    driver.feed(fleet := Fleet(fakes, limit=1))
    starting = asyncio.create_task(fleet.start(LLM + service("web", "0", "workers = 2")))
    await until(lambda: fakes.times("web", "accepts") == [1.0, 2.0])
    assert not fakes.of("llm")
    driver.strangers.clear()
    await starting


@virtual_time
async def test_a_stop_does_not_wait_for_room(fakes: Fakes) -> None:
    driver = Driver(fakes)
    driver.strangers["GPU-0", STRANGER] = 58 * GIB
    driver.feed(fleet := Fleet(fakes))
    starting = asyncio.create_task(fleet.start(LLM))
    await asyncio.sleep(3)
    before = now()
    assert await fleet.supervisor.stop(10.0)
    assert now() == before
    starting.cancel()
    assert not fakes.of("llm")


@virtual_time
async def test_a_reload_without_room_is_undone(fakes: Fakes) -> None:
    driver = Driver(fakes)
    driver.feed(fleet := Fleet(fakes))
    old = service("llm", '{ share = 0.3, memory = "20GiB" }', "timeouts.startup = 20")
    driver.holds = ready_ones(21 * GIB)
    await fleet.start(old)
    driver.strangers["GPU-0", STRANGER] = 50 * GIB
    await asyncio.sleep(2)
    with pytest.raises(
        ApplyError, match=r"no room for 20 s .*9 of 20 GiB free, 50 GiB held by pid"
    ):
        await fleet.apply(old + 'env.A = "1"\n')
    (worker,) = fakes.of("llm")
    assert worker.accepting
    assert fleet.states == {"llm": "ready"}


@virtual_time
async def test_what_fills_its_gpu_is_recreated(fakes: Fakes) -> None:
    driver = Driver(fakes)
    driver.feed(fleet := Fleet(fakes))
    driver.holds = lambda worker: 70 * GIB
    await fleet.start(LLM)
    await asyncio.sleep(5)
    await fleet.apply(LLM + 'env.A = "1"\n')
    first, second = fakes.of("llm")
    assert not first.is_alive()
    assert second.accepting


@virtual_time
async def test_a_killed_worker_is_replaced_when_its_memory_is_free(fakes: Fakes) -> None:
    driver = Driver(fakes)
    driver.feed(fleet := Fleet(fakes))
    driver.holds = lambda worker: 70 * GIB
    await fleet.start(LLM)
    await asyncio.sleep(3)
    room, looks = fleet.context.workers.gpus, []
    room.look = lambda: looks.append(now())
    dead = fakes.of("llm")[0]
    driver.strangers["GPU-0", dead.pid] = 70 * GIB  # what the driver has not freed yet
    dead.die(-9)
    await asyncio.sleep(5)
    assert len(fakes.of("llm")) == 1
    assert looks[0] == 4.0, "no second is lost once it has ended"
    assert f"70 GiB held by pid {dead.pid} (python, not servd's)" in fleet["llm"].error
    driver.strangers.clear()
    await until(lambda: fleet["llm"].state == "ready")
    assert len(fakes.of("llm")) == 2


@virtual_time
async def test_without_figures_the_plan_counts_alone(fakes: Fakes) -> None:
    Driver(fakes)
    fleet = Fleet(fakes)  # it is told of nothing
    await fleet.start(PAIR)
    starts = sorted([*fakes.times("a", "started"), *fakes.times("b", "started")])
    assert len(set(starts)) == 3, "one after the other all the same"


@virtual_time
async def test_figures_that_end_open_the_gate(fakes: Fakes) -> None:
    driver = Driver(fakes)
    driver.strangers["GPU-0", STRANGER] = 58 * GIB
    fleet = Fleet(fakes)
    room = fleet.context.workers.gpus
    room.take(driver.snapshot())
    starting = asyncio.create_task(fleet.start(LLM))
    await asyncio.sleep(5)
    assert not fakes.of("llm")
    room.take(None)
    assert await starting == {}
    assert fakes.times("llm", "started") == [5.0]


@virtual_time
async def test_what_started_lately_counts_before_it_shows(fakes: Fakes) -> None:
    """The figures that come right after a start may have been made before it."""
    driver = Driver(fakes)
    fleet = Fleet(fakes)
    room = fleet.context.workers.gpus
    empty = driver.snapshot()
    room.take(empty)
    await fleet.start(service("a", '{ share = 0.4, memory = "45GiB" }'))
    plan, gpus = fleet["a"].plan, ("GPU-0",)
    assert room.why_not(plan, gpus) is not None
    room.take(empty)
    assert room.why_not(plan, gpus) is not None
    room.take(empty)
    assert room.why_not(plan, gpus) is None


@virtual_time
async def test_own_workers_are_named_and_a_container_names_nobody(fakes: Fakes) -> None:
    driver = Driver(fakes)
    fleet = Fleet(fakes)
    room = fleet.context.workers.gpus
    driver.holds = lambda worker: 60 * GIB
    await fleet.start(service("a", '{ share = 0.4, memory = "45GiB" }'))
    for _ in range(2):
        room.take(driver.snapshot())
    pid = fakes.of("a")[0].pid
    wait = room.why_not(fleet["a"].plan, ("GPU-0",))
    assert wait is not None
    assert wait.text == f"GPU 0: 20 of 45 GiB free, 60 GiB held by a worker 0 (pid {pid})"
    driver.names_processes = False
    room.take(driver.snapshot())
    wait = room.why_not(fleet["a"].plan, ("GPU-0",))
    assert wait is not None
    assert wait.text == "GPU 0: 20 of 45 GiB free"


@virtual_time
async def test_a_gpu_is_the_same_by_its_number(fakes: Fakes) -> None:
    """A plan from before the driver answered calls it so."""
    driver = Driver(fakes)
    fleet = Fleet(fakes)
    fakes.plays("a", Script(ready_after=5.0))
    starting = asyncio.create_task(fleet.start(SMALL))
    await until(lambda: fakes.of("a"))
    room, plan = fleet.context.workers.gpus, fleet["a"].plan
    assert room.why_not(plan, ("0",)) is None
    room.take(driver.snapshot())
    wait = room.why_not(plan, ("0",))
    assert wait is not None
    assert wait.is_turn
    await starting
    assert room.why_not(plan, ("0",)) is None


@virtual_time
async def test_the_context_is_part_of_what_is_needed(fakes: Fakes) -> None:
    driver = Driver(fakes)
    fleet = Fleet(fakes)
    room = fleet.context.workers.gpus
    driver.strangers["GPU-0", STRANGER] = TOTAL - 70 * GIB - GIB // 4
    room.take(driver.snapshot())
    (plan,) = fakes.plan(LLM).services
    wait = room.why_not(plan, ("GPU-0",))
    assert wait is not None
    assert wait.text.startswith("GPU 0: 70.2 of 70.5 GiB free, ")


# recycling


@virtual_time
async def test_a_worker_over_its_limit_is_replaced_successor_first_where_it_fits(
    fakes: Fakes,
) -> None:
    driver = Driver(fakes)
    driver.feed(fleet := Fleet(fakes))
    grown: set[FakeWorker] = set()
    driver.holds = lambda worker: (13 if worker in grown else 9) * GIB
    text = service("a", '{ share = 0.2, memory = "9GiB" }', 'limits.gpu_memory = "12GiB"')
    await fleet.start(text)
    await asyncio.sleep(10)
    grown.add(fakes.of("a")[0])
    await until(lambda: len(fakes.of("a")) == 2 and not fakes.of("a")[0].is_alive())
    (said,) = fakes.logged(Event.WORKER_TO_BE_RECYCLED)
    assert {said[key] for key in ("reason", "gpu", "bytes")} == {"gpu_memory", "0", 13 * GIB}
    assert fakes.least_accepting("a", since=2.0) == 1
    assert fleet.context.workers.gpus.peaks == {"a": 13 * GIB}
    (above,) = fakes.logged(Event.GPU_MEMORY_ABOVE_DECLARED)
    assert (above["service"], above["declared"], above["peak"]) == ("a", "9GiB", "13GiB")


@virtual_time
async def test_a_worker_over_its_limit_ends_first_where_two_do_not_fit(fakes: Fakes) -> None:
    """Measured, not planned: the plan expects room for both."""
    driver = Driver(fakes)
    driver.feed(fleet := Fleet(fakes))
    grown: set[FakeWorker] = set()
    driver.holds = lambda worker: (60 if worker in grown else 30) * GIB
    text = service("a", '{ share = 0.2, memory = "30GiB" }', 'limits.gpu_memory = "50GiB"')
    await fleet.start(text)
    assert fleet["a"].plan.rollout.strategy == "surge"
    await asyncio.sleep(10)
    grown.add(fakes.of("a")[0])
    await until(lambda: len(fakes.of("a")) == 2 and fleet["a"].state == "ready")
    old, new = fakes.of("a")
    ended = [note.at for note in fakes.notes if note.worker is old and note.what == "reaped"]
    began = [note.at for note in fakes.notes if note.worker is new and note.what == "started"]
    assert ended <= began


@virtual_time
async def test_a_worker_over_its_limit_from_the_start_stays(fakes: Fakes) -> None:
    driver = Driver(fakes)
    driver.feed(fleet := Fleet(fakes))
    driver.holds = ready_ones(13 * GIB)
    text = service("a", '{ share = 0.2, memory = "9GiB" }', 'limits.gpu_memory = "12GiB"')
    await fleet.start(text)
    await asyncio.sleep(60)
    assert len(fakes.of("a")) == 1
    (said,) = fakes.logged(Event.WORKER_NOT_RECYCLED)
    assert said["reason"] == "a new worker already exceeds limits.gpu_memory"


@virtual_time
async def test_memory_that_shows_late_is_of_the_start_all_the_same(fakes: Fakes) -> None:
    driver = Driver(fakes)
    fleet = Fleet(fakes)
    room = fleet.context.workers.gpus
    driver.holds = lambda worker: 5 * GIB
    text = service("a", '{ share = 0.2, memory = "9GiB" }', 'limits.gpu_memory = "12GiB"')
    await fleet.start(text)
    await asyncio.sleep(0.1)
    room.take(driver.snapshot())  # made before the worker was ready
    driver.holds = lambda worker: 13 * GIB
    for _ in range(3):
        await asyncio.sleep(1)
        room.take(driver.snapshot())
    await asyncio.sleep(5)
    assert fakes.logged(Event.WORKER_NOT_RECYCLED)
    assert not fakes.logged(Event.WORKER_TO_BE_RECYCLED)


@virtual_time
async def test_a_recycle_waits_for_the_others_that_start(fakes: Fakes) -> None:
    small_b = service("b", '{ share = 0.2, memory = "9GiB" }')
    driver = Driver(fakes)
    driver.feed(fleet := Fleet(fakes))
    await fleet.start(SMALL)
    fakes.plays("b", Script(ready_after=30.0))
    growing = asyncio.create_task(fleet.apply(SMALL + small_b))
    await until(lambda: fakes.of("b"))
    fakes.of("a")[0].ask_to_be_recycled()
    await growing
    await until(lambda: len(fakes.of("a")) == 2)
    assert fakes.times("a", "started")[1] >= fakes.times("b", "accepts")[0]


# numbers


@virtual_time
async def test_a_worker_is_told_the_number_that_its_gpu_has_now(fakes: Fakes) -> None:
    driver = Driver(fakes, 2)
    fleet = Fleet(fakes)
    await fleet.start(service("a", "[1]"))
    launch = fakes.of("a")[0].launch
    assert launch.environment(0, "")["CUDA_VISIBLE_DEVICES"] == "1"
    left = dataclasses.replace(driver.gpus[1], number="0")
    fleet.context.workers.gpus.take(GpuSnapshot((left,)))
    assert launch.environment(0, "")["CUDA_VISIBLE_DEVICES"] == "0"


def test_what_processes_hold_together_is_the_sum_of_their_memory() -> None:
    room = GpuRoom()
    assert room.memory_of([1]) == 0
    gpus = tuple(Gpu(f"GPU-{n}", holders=(GpuHolder(1, 5), GpuHolder(2))) for n in range(2))
    room.take(GpuSnapshot(gpus))
    assert (room.memory_of([1, 2]), room.memory_of([2]), room.memory_of([3])) == (10, 0, 0)
    room.take(GpuSnapshot(gpus, names_processes=False))
    assert room.memory_of([1]) == 0


@virtual_time
async def test_each_holder_is_looked_up_once_per_snapshot(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many workers are looked after."""
    driver = Driver(fakes)
    driver.strangers["GPU-0", STRANGER] = GIB
    driver.holds = ready_ones(GIB)
    fleet = Fleet(fakes)
    await fleet.start(service("a", "0.2", "workers = 4"))
    room, asked = fleet.context.workers.gpus, list[int]()

    def owner_of(pid: int, leaders: Collection[int]) -> int | None:
        asked.append(pid)
        return pid if pid in leaders else None

    monkeypatch.setattr("servd.supervisor.gpus.owner_of", owner_of)
    looks = [anext(room.holders(worker)) for worker in fakes.workers]
    told = asyncio.gather(*looks)
    await asyncio.sleep(0)
    room.take(driver.snapshot())
    pids = [worker.pid for worker in fakes.workers]
    assert [list(held or ()) for held in await told] == [[pid] for pid in pids]
    assert sorted(asked) == sorted([STRANGER, *pids])
