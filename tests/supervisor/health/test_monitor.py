"""What a monitor makes of the signs of one worker, and of their absence."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from servd.plan.model import HealthPlan, ServicePlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.health.monitor import HealthMonitor
from servd.supervisor.health.progress import WorkDone
from servd.wire.shm_counters import Counters

from support.fake_worker import Fakes, FakeWorker, Script
from support.virtual_time import VirtualTimeLoop, now, virtual_time

APP = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n'
PROGRAM = '[services.web]\ncommand = ["sleep", "9"]\n'

HEALTH = HealthPlan(None, "/", "localhost", interval=2.0, timeout=1.0, failures=3)


class Notices(list[tuple[float, str]]):
    """A listener that writes down what it is told."""

    def hung(self, process: WorkerProcess, seconds: float) -> None:
        self.append((now(), f"hung for {seconds:g} s"))

    def stuck(self, process: WorkerProcess, seconds: float) -> None:
        self.append((now(), f"stuck for {seconds:g} s"))

    def lost_engine(self, process: WorkerProcess, reason: str) -> None:
        self.append((now(), f"lost: {reason}"))

    def unwell(self, process: WorkerProcess, reason: str) -> None:
        self.append((now(), f"unwell: {reason}"))

    def recovered(self, process: WorkerProcess) -> None:
        self.append((now(), "recovered"))

    def over_limit_at_start(self, process: WorkerProcess, key: str, **details: Any) -> None:
        self.append((now(), "over its limit at its start"))

    def request_recycle(self, process: WorkerProcess, reason: str, **details: Any) -> None:
        self.append((now(), f"recycle: {reason}"))


class Watched:
    """A ready worker, a plan that its own group does not watch it by, and what is noticed."""

    def __init__(self, fakes: Fakes, worker: FakeWorker) -> None:
        self.worker = worker
        self.plan: ServicePlan = replace(worker.launch.plan, watchdog=None)
        self.notices = Notices()

    def monitor(self, **plan: Any) -> HealthMonitor:
        return HealthMonitor(self.worker, replace(self.plan, **plan), self.notices)


async def watched(fakes: Fakes, script: Script | None = None, text: str = APP) -> Watched:
    fakes.plays("web", script or Script())
    _, group = await fakes.begin(text)
    await group.until_ready()
    (worker,) = fakes.of("web")
    return Watched(fakes, worker)


def hold_up(seconds: float) -> None:
    """The daemon itself does not run for so long: the machine sleeps."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.jump(seconds)


def later(seconds: float, act: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_later(seconds, act)


# signs of life


@virtual_time
async def test_a_worker_is_hung_after_so_many_seconds_of_silence(fakes: Fakes) -> None:
    found = await watched(fakes, Script(signs_every=0.5, signs_until=6.0))
    found.monitor(watchdog=3.0)
    await asyncio.sleep(30.0)
    assert found.notices == [(9.0, "hung for 3 s")]


@virtual_time
async def test_a_worker_that_gives_signs_in_time_is_never_hung(fakes: Fakes) -> None:
    found = await watched(fakes, Script(signs_every=2.9))
    found.monitor(watchdog=3.0)
    await asyncio.sleep(100.0)
    assert not found.notices


@virtual_time
async def test_the_time_before_it_was_ready_does_not_count(fakes: Fakes) -> None:
    """Importing an app may block its loop for longer."""
    found = await watched(fakes, Script(ready_after=20.0, signs_every=0.5, signs_until=1.0))
    found.monitor(watchdog=3.0)
    await asyncio.sleep(2.9)
    assert not found.notices
    await asyncio.sleep(0.2)
    assert found.notices == [(23.0, "hung for 3 s")]


@pytest.mark.parametrize(
    ("script", "notices"),
    [
        (Script(), []),
        (Script(signs_every=0.5, signs_until=6.0), [(9.0, "hung for 3 s")]),
    ],
)
def test_a_program_is_watched_from_its_first_sign_on(
    fakes: Fakes, script: Script, notices: list[object]
) -> None:
    @virtual_time
    async def test() -> None:
        found = await watched(fakes, script, text=PROGRAM + "watchdog = 3")
        found.monitor(watchdog=3.0)
        await asyncio.sleep(30.0)
        assert found.notices == notices

    test()


@pytest.mark.parametrize(
    ("told", "asked", "hung_at"),
    [("3", 9.0, 15.0), ("9", 3.0, 15.0), ("3", 3.0, 9.0), ("3", None, None)],
)
def test_a_program_may_take_as_long_as_it_was_told_at_its_start(
    fakes: Fakes, told: str, asked: float | None, hung_at: float | None
) -> None:
    """The group's own monitor would end it before: its listener is silenced."""

    @virtual_time
    async def test() -> None:
        script = Script(signs_every=0.5, signs_until=6.0, aborts=False)
        found = await watched(fakes, script, text=f"{PROGRAM}watchdog = {told}")
        found.worker.signal_group = lambda number: None  # type: ignore[method-assign]
        found.monitor(watchdog=asked)
        await asyncio.sleep(30.0)
        assert [at for at, _ in found.notices] == ([hung_at] if hung_at else [])

    test()


@virtual_time
async def test_a_daemon_that_slept_takes_no_worker_for_hung(fakes: Fakes) -> None:
    found = await watched(fakes, Script(signs_every=0.5, signs_until=4.0))
    found.monitor(watchdog=5.0)
    later(5.0, lambda: hold_up(100.0))
    await asyncio.sleep(5.5)
    assert now() == 106.0
    assert not found.notices
    await asyncio.sleep(10.0)
    assert found.notices == [(111.0, "hung for 5 s")]


@virtual_time
async def test_a_daemon_that_is_a_little_late_blames_the_worker_all_the_same(
    fakes: Fakes,
) -> None:
    found = await watched(fakes, Script(signs_every=0.5, signs_until=4.0))
    found.monitor(watchdog=5.0)
    later(7.5, lambda: hold_up(1.0))
    await asyncio.sleep(20.0)
    assert found.notices == [(9.5, "hung for 5 s")]


@virtual_time
async def test_a_worker_that_was_asked_to_end_is_not_watched_any_more(fakes: Fakes) -> None:
    found = await watched(fakes, Script(signs_every=0.5, signs_until=4.0))
    found.monitor(watchdog=5.0, health=HEALTH)
    found.worker.stopping = True
    await asyncio.sleep(60.0)
    assert not found.notices


@virtual_time
async def test_nothing_is_watched_once_the_worker_has_ended(fakes: Fakes) -> None:
    found = await watched(fakes)
    monitor = found.monitor(watchdog=5.0, limits=replace_age(found.plan, 9.0))
    found.worker.die(0)
    await asyncio.sleep(60.0)
    assert not found.notices
    assert not monitor._tasks


# age


def replace_age(plan: ServicePlan, seconds: float) -> Any:
    return plan.limits.model_copy(update={"max_age": seconds})


@virtual_time
async def test_a_changed_age_counts_from_when_the_worker_was_ready(fakes: Fakes) -> None:
    found = await watched(fakes)
    monitor = found.monitor(limits=replace_age(found.plan, 1000.0))
    await asyncio.sleep(50.0)
    monitor.renew(replace(found.plan, limits=replace_age(found.plan, 60.0)))
    await asyncio.sleep(100.0)
    assert found.notices == [(61.0, "recycle: max_age")]


@virtual_time
async def test_a_worker_that_is_older_than_a_changed_age_is_recycled_at_once(
    fakes: Fakes,
) -> None:
    found = await watched(fakes)
    monitor = found.monitor()
    await asyncio.sleep(50.0)
    monitor.renew(replace(found.plan, limits=replace_age(found.plan, 20.0)))
    await asyncio.sleep(0.1)
    assert found.notices == [(51.0, "recycle: max_age")]


# health


class Probes:
    """Answers probes in turn; the last answer stays."""

    def __init__(self, *answers: str | OSError, takes: float = 0.0) -> None:
        self.answers = list(answers)
        self.takes = takes
        self.asked: list[float] = []

    async def __call__(self, *_: object) -> str:
        self.asked.append(now())
        await asyncio.sleep(self.takes)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


SHORTAGE = OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize(
    ("answers", "notices"),
    [
        ([""], []),
        (["bad", "bad", ""], []),
        (["bad", "bad", "", "bad", "bad", ""], []),
        (["bad", "bad", "bad", ""], [(7.0, "unwell: bad"), (9.0, "recovered")]),
        (["bad", "bad", "worse", "bad", ""],
         [(7.0, "unwell: worse"), (9.0, "unwell: bad"), (11.0, "recovered")]),
        (["bad", SHORTAGE, "bad", SHORTAGE, ""], []),
        (["bad", SHORTAGE, "bad", "bad", ""], [(9.0, "unwell: bad"), (11.0, "recovered")]),
        ([SHORTAGE], []),
    ],
)  # fmt: skip
def test_a_worker_is_unwell_after_so_many_failures_in_a_row(
    fakes: Fakes,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[str | OSError],
    notices: list[tuple[float, str]],
) -> None:
    probes = Probes(*answers)
    monkeypatch.setattr("servd.supervisor.health.monitor.why_unwell", probes)

    @virtual_time
    async def test() -> None:
        found = await watched(fakes)
        found.monitor(health=HEALTH)
        await asyncio.sleep(20.0)
        assert found.notices == notices
        assert found.worker.unwell == ""
        assert probes.asked[:3] == [3.0, 5.0, 7.0]

    test()


@virtual_time
async def test_a_daemon_that_slept_during_a_probe_does_not_count_it(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = Probes("bad", takes=1.0)
    monkeypatch.setattr("servd.supervisor.health.monitor.why_unwell", probes)
    found = await watched(fakes)
    found.monitor(health=HEALTH)
    later(5.5, lambda: hold_up(60.0))  # during the second one
    await asyncio.sleep(71.0)
    assert probes.asked[:4] == [3.0, 6.0, 68.5, 71.5]
    assert not found.notices
    await asyncio.sleep(1.0)
    assert found.notices[0] == (72.5, "unwell: bad")


@virtual_time
async def test_requests_are_not_stuck_while_the_daemon_slept_during_a_probe(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servd.supervisor.health.monitor.why_unwell", Probes("", takes=1.0))
    monkeypatch.setattr(
        "servd.supervisor.health.monitor.work_of", lambda _: WorkDone(in_flight=1, done=5, well=5)
    )
    found = await watched(fakes)
    found.worker.counters = Counters()  # type: ignore[assignment]  # of which nothing is read
    found.monitor(health=replace(HEALTH, trusts=True))
    later(2.5, lambda: hold_up(60.0))
    await asyncio.sleep(80.0)
    assert [text.partition(" ")[0] for _, text in found.notices] == ["stuck"]
    assert found.notices[0][0] >= 60.0 + HEALTH.interval * HEALTH.failures


@virtual_time
async def test_without_a_health_check_the_worker_has_recovered(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servd.supervisor.health.monitor.why_unwell", Probes("bad"))
    found = await watched(fakes)
    monitor = found.monitor(health=HEALTH)
    await asyncio.sleep(6.5)
    assert found.worker.unwell == "bad"
    monitor.renew(found.plan)
    assert found.worker.unwell == ""
    await asyncio.sleep(20.0)
    assert found.notices == [(7.0, "unwell: bad"), (7.5, "recovered")]
