"""`busy = "trust"`: answers tell more about a worker than probes do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from servd.config.http_file import RequestFile
from servd.plan.model import HealthPlan
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.health.monitor import HealthMonitor
from servd.supervisor.health.progress import WorkDone, WorkProgress
from servd.wire import shm_counters
from servd.wire.sealed_memory import create
from servd.wire.shm_counters import IN_FLIGHT, PARTS, Counters, CounterView

from support.fake_worker import Fakes, FakeWorker, Script
from support.harness import Servd, wait_until
from support.virtual_time import now, virtual_time

APP = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n'
TRUST = HealthPlan(None, "/", "localhost", interval=2.0, timeout=1.0, failures=3, trusts=True)


@pytest.mark.parametrize(
    ("looks", "stuck_from"),
    [
        # seconds, in flight, done
        ([(0, 0, 0), (2, 0, 0), (9, 0, 0)], None),
        ([(0, 1, 0), (2, 1, 0), (4, 1, 0), (6, 1, 0)], 6),
        ([(0, 0, 0), (2, 1, 0), (4, 1, 0), (6, 1, 0), (8, 1, 0)], 8),
        ([(0, 1, 0), (2, 1, 0), (4, 1, 1), (6, 1, 1), (8, 1, 1), (10, 1, 1)], 10),
        ([(0, 9, 0), (2, 9, 1), (4, 9, 2), (6, 9, 3), (8, 9, 4), (10, 9, 5)], None),
        ([(0, 1, 0), (2, 1, 0), (4, 0, 1), (6, 1, 1), (8, 1, 1), (10, 1, 1)], None),
    ],
)
def test_a_worker_is_stuck_that_had_requests_and_did_nothing(
    looks: list[tuple[int, int, int]], stuck_from: int | None
) -> None:
    progress = WorkProgress(6.0)
    found = []
    for at, in_flight, done in looks:
        progress.look(WorkDone(in_flight, done, done), at)
        if progress.stuck_for(at):
            found.append(at)
    assert found == ([stuck_from] if stuck_from is not None else [])


def test_a_failure_is_progress_but_does_not_show_that_it_is_well() -> None:
    progress = WorkProgress(6.0)
    assert not progress.look(WorkDone(1, 5, 5), 0.0)
    assert progress.look(WorkDone(1, 6, 6), 2.0)
    assert not progress.look(WorkDone(1, 7, 6), 4.0)
    assert not progress.look(WorkDone(1, 7, 6), 9.9)
    assert not progress.stuck_for(9.9)
    assert progress.stuck_for(10.0) == 6.0


class Notices(list[tuple[float, str]]):
    """What a monitor says, and when."""

    def hung(self, process: WorkerProcess, seconds: float) -> None:
        self.append((now(), "hung"))

    def stuck(self, process: WorkerProcess, seconds: float) -> None:
        self.append((now(), f"stuck for {seconds:g} s"))

    def unwell(self, process: WorkerProcess, reason: str) -> None:
        self.append((now(), f"unwell: {reason}"))

    def recovered(self, process: WorkerProcess) -> None:
        self.append((now(), "recovered"))

    def lost_engine(self, process: WorkerProcess, reason: str) -> None:
        self.append((now(), f"lost: {reason}"))

    def over_limit_at_start(self, process: WorkerProcess, key: str, **details: Any) -> None: ...

    def request_recycle(self, process: WorkerProcess, reason: str, **details: Any) -> None: ...


class Watched:
    """A ready worker with counters, whose probes have an answer, and what is noticed of it."""

    def __init__(self, worker: FakeWorker, plan: HealthPlan) -> None:
        descriptor = create("test", shm_counters.SIZE)
        worker.counters = CounterView(descriptor)
        self.counters = Counters(descriptor)
        self.notices = Notices()
        self.asked: list[float] = []
        self.answer = ""
        whole = replace(worker.launch.plan, watchdog=None, health=plan)
        self.monitor = HealthMonitor(worker, whole, self.notices)
        self.began = now()

    async def probe(self, *_: object) -> str:
        self.asked.append(now() - self.began)
        await asyncio.sleep(1.0 if self.answer else 0.0)
        return self.answer

    async def answers(self, seconds: float, status: int = 200, every: float = 1.0) -> None:
        end = now() + seconds
        while now() < end:
            await asyncio.sleep(every)
            self.counters.answered("POST", status, every)

    @property
    def said(self) -> list[tuple[float, str]]:
        return [(at - self.began, what) for at, what in self.notices]


async def watched(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, plan: HealthPlan = TRUST
) -> Watched:
    fakes.plays("web", Script())
    _, group = await fakes.begin(APP)
    await group.until_ready()
    (worker,) = fakes.of("web")
    found = Watched(worker, plan)
    monkeypatch.setattr("servd.supervisor.health.monitor.why_unwell", found.probe)
    return found


@virtual_time
async def test_a_worker_is_not_asked_while_it_answers(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await watched(fakes, monkeypatch)
    found.answer = "bad"
    await found.answers(30.0)
    assert (found.asked, found.said) == ([], [])
    found.answer = ""
    await asyncio.sleep(6.0)
    assert found.asked


@virtual_time
async def test_a_worker_that_only_fails_is_asked(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await watched(fakes, monkeypatch)
    found.answer = "bad"
    await found.answers(12.0, status=500)
    assert found.said[0][1] == "unwell: bad"


@virtual_time
async def test_a_probe_that_fails_beside_good_answers_is_no_failure(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One answer in three seconds: most looks, two seconds apart, find some, or the probe does."""
    found = await watched(fakes, monkeypatch)
    found.answer = "slow"
    found.counters.gauges[IN_FLIGHT] = 1
    await found.answers(60.0, every=3.0)
    assert found.asked
    assert found.said == []


@virtual_time
async def test_requests_without_progress_show_a_stuck_worker_whose_probes_succeed(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await watched(fakes, monkeypatch)
    await asyncio.sleep(10.5)
    found.counters.gauges[IN_FLIGHT] = 2
    await asyncio.sleep(30.0)
    assert found.said == [(18.0, "stuck for 6 s")]


@virtual_time
async def test_parts_of_a_stream_are_progress(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await watched(fakes, monkeypatch)
    found.counters.gauges[IN_FLIGHT] = 1
    for _ in range(20):
        found.counters.gauges[PARTS] += 1
        await asyncio.sleep(1.5)
    assert (found.asked, found.said) == ([], [])
    await asyncio.sleep(20.0)
    assert [what for _, what in found.said] == ["stuck for 6 s"]


@virtual_time
async def test_a_probe_that_does_the_real_work_is_progress(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(TRUST, request=RequestFile("POST", "/predict"))
    found = await watched(fakes, monkeypatch, plan)
    found.counters.gauges[IN_FLIGHT] = 1
    await asyncio.sleep(60.0)
    assert len(found.asked) > 20
    assert found.said == []


# with real workers

WORKER = """
    import asyncio, os, threading
    from pathlib import Path

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/stuck" and Path("sick").exists():
            await asyncio.to_thread(threading.Event().wait)  # the engine; the loop lives
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/stream":
            for _ in range(int(scope["query_string"])):
                await send({"type": "http.response.body", "body": b"x" * 60000, "more_body": True})
                await asyncio.sleep(0.2)
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""

CONFIG = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    health = { interval = "1s", timeout = "1s", failures = 2, busy = "trust" }
"""


def test_an_app_that_hangs_but_answers_its_probes_is_replaced(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=WORKER).ready()
    (before,) = daemon.pids("web")
    (daemon.folder / "sick").touch()
    with pytest.raises(httpx.TransportError):
        httpx.get(daemon.url("web") + "/stuck", timeout=60.0)
    (daemon.folder / "sick").unlink()
    hung = daemon.wait_for("worker hung", reason="no progress", pid=before)
    assert 2.0 <= hung["seconds"] < 60.0
    died = daemon.wait_for("worker exited", pid=before)
    assert died["reason"].startswith("made no progress with its requests for ")
    wait_until(lambda: daemon.pids("web") not in ([], [before]), "another worker")
    labels = {"service": "web", "reason": "no_progress"}
    assert daemon.metric("servd_worker_restarts_total", **labels) == 1


def test_a_client_that_takes_its_time_is_not_the_fault_of_the_worker(servd: Servd) -> None:
    """It sends a part of its body, or takes nothing of the answer, for longer than it may last."""
    daemon = servd(CONFIG.replace("failures = 2", "failures = 4"), main_py=WORKER).ready()
    (before,) = daemon.pids("web")

    def slowly() -> Iterator[bytes]:
        yield b"a part"
        wait_until(Path(daemon.folder / "go").exists, "the test")
        yield b"the rest"

    answers: list[str] = []
    url = daemon.url("web")
    sending = threading.Thread(
        target=lambda: answers.append(httpx.post(url, content=slowly(), timeout=90.0).text)
    )
    sending.start()
    time.sleep(7.0)  # longer than four intervals, and than looks are late
    (daemon.folder / "go").touch()
    sending.join()
    assert answers == [str(before)]
    assert not daemon.find("worker hung")
