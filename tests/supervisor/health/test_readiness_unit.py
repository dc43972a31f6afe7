"""When a worker counts as ready, by each way to know it, and when it is too late."""

from __future__ import annotations

import asyncio
import errno
import itertools
from dataclasses import replace
from typing import Any

import pytest

from servd.core.address import parse_address
from servd.plan.model import PROOF_SECONDS, HealthPlan, ReadyPlan, ServicePlan
from servd.supervisor.health.readiness import (
    NotReadyError,
    ready_or_over,
    was_held_up,
)

from support.fake_worker import NEVER, Fakes, FakeWorker, Script
from support.virtual_time import VirtualTimeLoop, now, virtual_time

APP = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\ntimeouts.startup = 500\n'
PROGRAM = '[services.web]\ncommand = ["sleep", "9"]\ntimeouts.startup = 500\n'

HEALTH = HealthPlan(None, "/", "localhost", interval=2.0, timeout=1.0, failures=3)
ADDRESS = parse_address("127.0.0.1:4567")


async def started(fakes: Fakes, script: Script, text: str) -> tuple[FakeWorker, ServicePlan]:
    """A worker that was just started. (Its own group waits for it, too.)"""
    fakes.plays("web", script)
    generation, _ = await fakes.begin(text, probation=True)
    return fakes.of("web")[0], generation.plan


@pytest.mark.parametrize(
    ("late", "seconds", "held_up"),
    [
        (0.0, 30.0, False), (1.0, 30.0, False), (1.1, 30.0, True), (100.0, 30.0, True),
        (0.1, 0.4, False), (0.2, 0.4, False), (0.3, 0.4, True),
        (0.9, 2.0, False), (1.1, 2.0, True), (-1.0, 2.0, False),
    ],
)  # fmt: skip
def test_who_comes_late_itself_blames_no_other(late: float, seconds: float, held_up: bool) -> None:
    assert was_held_up(late, seconds) == held_up


@pytest.mark.parametrize(
    ("mode", "text", "script", "at"),
    [
        # READY=1
        ("notify", APP, Script(ready_after=3.0), 3.0),
        ("notify", APP, Script(ready_after=NEVER, dies_after=5.0), 5.0),
        ("notify", PROGRAM + 'ready = "notify"', Script(ready_after=3.0), 3.0),
        ("started", PROGRAM + 'ready = "5s"', Script(ready_after=3.0), 8.0),
        ("started", PROGRAM + 'ready = "5s"', Script(ready_after=3.0, dies_after=7.0), 7.0),
        # a program that tells nothing: it was run, and has to live on for a moment
        ("started", PROGRAM, Script(ready_after=3.0), 3.0 + PROOF_SECONDS),
        ("started", PROGRAM, Script(ready_after=3.0, dies_after=3.1), 3.1),
        ("started", PROGRAM, Script(ready_after=NEVER, dies_after=2.0), 2.0),
        # a task
        ("exit", PROGRAM + 'kind = "task"', Script(ready_after=0.0, dies_after=9.0), 9.0),
    ],
)
def test_a_worker_is_ready_or_over(
    fakes: Fakes, mode: str, text: str, script: Script, at: float
) -> None:
    @virtual_time
    async def test() -> None:
        worker, plan = await started(fakes, script, text)
        assert plan.ready.mode == mode
        await ready_or_over(worker, plan)
        assert now() == at

    test()


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("notify", APP),
        ("started", PROGRAM),
        ("exit", PROGRAM + 'kind = "task"'),
    ],
)
def test_what_is_neither_ready_nor_over_within_its_startup_is_late(
    fakes: Fakes, mode: str, text: str
) -> None:
    @virtual_time
    async def test() -> None:
        worker, plan = await started(fakes, Script(ready_after=NEVER), text)
        assert plan.ready.mode == mode
        with pytest.raises(NotReadyError, match=r"^was not ready within 7 s \(timeouts"):
            await ready_or_over(worker, replace(plan, startup=7.0))
        assert now() == 7.0

    test()


@virtual_time
async def test_a_daemon_that_slept_gives_a_starting_worker_its_time_once_more(
    fakes: Fakes,
) -> None:
    worker, plan = await started(fakes, Script(ready_after=NEVER), APP)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.call_later(5.0, loop.jump, 100.0)
    with pytest.raises(NotReadyError, match="within 7 s"):
        await ready_or_over(worker, replace(plan, startup=7.0))
    assert now() == 105.0 + 7.0


# asking


class Probes:
    """Answers from `well_at` on; each answer takes a while."""

    def __init__(self, well_at: float, error: OSError | None = None, takes: float = 0.0) -> None:
        self.well_at, self.error, self.takes = well_at, error, takes
        self.asked: list[float] = []

    async def __call__(self, *_: object) -> str:
        self.asked.append(now())
        await asyncio.sleep(self.takes)
        if now() >= self.well_at:
            return ""
        if self.error is not None:
            raise self.error
        return "GET / returned 503"


def ask_with(monkeypatch: pytest.MonkeyPatch, well_at: float, **details: Any) -> Probes:
    probes = Probes(well_at, **details)
    monkeypatch.setattr("servd.supervisor.health.readiness.why_unwell", probes)
    return probes


@virtual_time
async def test_an_app_with_a_health_check_is_ready_once_it_is_well(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = ask_with(monkeypatch, 6.0)
    worker, plan = await started(fakes, Script(ready_after=3.0), APP)
    await ready_or_over(worker, replace(plan, health=HEALTH))
    assert 6.0 <= now() <= 6.5
    assert probes.asked[0] == 3.0
    pauses = [b - a for a, b in itertools.pairwise(probes.asked)]
    assert pauses == sorted(pauses)
    assert (round(pauses[0], 3), round(max(pauses), 3)) == (0.02, 0.5)
    assert worker.unwell == ""


@virtual_time
async def test_a_starting_worker_is_forgiven_failures_for_so_long_and_no_longer(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_with(monkeypatch, 100.0)
    worker, plan = await started(fakes, Script(ready_after=3.0), APP)
    plan = replace(plan, health=HEALTH, ready=replace(plan.ready, patience=4.0))
    with pytest.raises(NotReadyError, match="was not healthy within 4 s: GET / returned 503"):
        await ready_or_over(worker, plan)
    assert 7.0 <= now() <= 7.5


@virtual_time
async def test_what_probes_found_is_told_when_the_startup_is_over(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_with(monkeypatch, 100.0)
    worker, plan = await started(fakes, Script(ready_after=1.0), APP)
    with pytest.raises(
        NotReadyError, match=r"within 5 s \(timeouts\.startup\): GET / returned 503"
    ):
        await ready_or_over(worker, replace(plan, startup=5.0, health=HEALTH))


@virtual_time
async def test_a_shortage_of_the_daemon_is_asked_through(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_with(monkeypatch, 6.0, error=OSError(errno.EMFILE, "Too many open files"))
    worker, plan = await started(fakes, Script(ready_after=1.0), APP)
    await ready_or_over(worker, replace(plan, health=HEALTH))
    assert 6.0 <= now() <= 6.5


@virtual_time
async def test_a_worker_that_dies_while_it_is_asked_is_over(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_with(monkeypatch, 100.0)
    worker, plan = await started(fakes, Script(ready_after=1.0, dies_after=3.0), APP)
    await ready_or_over(worker, replace(plan, health=HEALTH))
    assert now() == 3.0


@virtual_time
async def test_a_path_of_a_program_is_asked_until_it_answers(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = ask_with(monkeypatch, 4.0)
    worker, plan = await started(fakes, Script(ready_after=1.0), PROGRAM)
    plan = replace(plan, ready=ReadyPlan("http", ADDRESS, patience=60.0))
    await ready_or_over(worker, plan)
    assert 4.0 <= now() <= 4.5
    assert probes.asked[0] == 0.0


@pytest.mark.parametrize(("script", "at"), [(Script(dies_after=9.0, ready_after=1.0), 9.0)])
def test_a_program_that_dies_is_not_asked_any_more(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, script: Script, at: float
) -> None:
    probes = ask_with(monkeypatch, 100.0)

    @virtual_time
    async def test() -> None:
        worker, plan = await started(fakes, script, PROGRAM)
        plan = replace(plan, ready=ReadyPlan("http", ADDRESS, patience=60.0))
        await ready_or_over(worker, plan)
        assert now() == at
        await asyncio.sleep(5.0)
        assert probes.asked[-1] <= at

    test()


class _Writer:
    def close(self) -> None:
        pass


@pytest.mark.parametrize("mode", ["port", "http"])
def test_a_program_that_says_so_first_is_not_waited_for(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    """READY=1 goes before what is asked."""

    async def connect_to(_: object) -> Any:
        raise ConnectionRefusedError

    ask_with(monkeypatch, 100.0)
    monkeypatch.setattr("servd.supervisor.health.readiness.connect_to", connect_to)

    @virtual_time
    async def test() -> None:
        worker, plan = await started(fakes, Script(ready_after=NEVER), PROGRAM)
        worker.later(2.0, lambda: worker._notified({"READY": "1"}))
        plan = replace(plan, ready=ReadyPlan(mode, ADDRESS, patience=60.0))
        await ready_or_over(worker, plan)
        assert now() == 2.0

    test()


@virtual_time
async def test_a_port_is_ready_once_it_accepts(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect_to(_: object) -> Any:
        if now() < 1.0:
            raise ConnectionRefusedError
        if now() < 3.0:
            await asyncio.sleep(60.0)  # a full queue
        return None, _Writer()

    monkeypatch.setattr("servd.supervisor.health.readiness.connect_to", connect_to)
    worker, plan = await started(fakes, Script(ready_after=0.0), PROGRAM)
    plan = replace(plan, ready=ReadyPlan("port", ADDRESS, timeout=0.7))
    await ready_or_over(worker, plan)
    assert 3.0 <= now() <= 4.3
