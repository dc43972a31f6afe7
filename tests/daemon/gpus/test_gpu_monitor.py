"""What the daemon knows of the GPUs, whatever becomes of its helper."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from servd.daemon.gpus import helper_link
from servd.daemon.gpus import monitor as monitor_module
from servd.daemon.gpus.monitor import GpuMonitor
from servd.host.gpu_helper import StartedHelper, start_helper
from servd.host.gpu_query import GpuAnswer, ask_gpus
from servd.plan.model import Plan
from servd.wire.gpus import GpuFault, GpuSnapshot

from support.gpus import GIB, FakeGpus
from support.in_loop import in_loop
from support.plans import plan_of

NO_GPUS = plan_of({"web": {"command": ("true",)}})
WITH_GPUS = Plan((replace(NO_GPUS.services[0], gpus=(("0",),)),))

NOTHING = GpuAnswer()

PATIENT = 1000.0
"""Seconds that no test waits for."""


class Watched:
    """A monitor of a helper that looks often, and what it tells."""

    def __init__(self, environ: Mapping[str, str], patience: float, interval: float = 0.02) -> None:
        whole = {**os.environ, **environ}
        self.monitor = GpuMonitor(whole, interval=interval, patience=patience)
        self.told: list[GpuSnapshot | None] = []
        self.faults: list[GpuFault] = []
        self.monitor.subscribe(self.told.append)
        self.monitor.on_fault = self.faults.append

    async def until(self, condition: Callable[[], Any]) -> None:
        """Waits for the condition; `in_loop` bounds it."""
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)

    async def known(self) -> GpuSnapshot:
        """The snapshot, once there is one."""
        await self.until(lambda: self.monitor.snapshot)
        assert self.monitor.snapshot is not None
        return self.monitor.snapshot

    @property
    def helper(self) -> int:
        """The pid of the helper that runs."""
        assert self.monitor.helper_pid is not None
        return self.monitor.helper_pid


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus.json", 2)


@pytest.fixture
def said() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


def names(said: list[Any]) -> list[str]:
    return [str(entry["event"]) for entry in said]


def runs(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


@in_loop
async def test_a_plan_without_gpus_starts_no_helper(gpus: FakeGpus) -> None:
    watched = Watched(gpus.environ, PATIENT)
    watched.monitor.follow(NO_GPUS)
    await asyncio.sleep(0)
    assert watched.monitor.helper_pid is None
    await watched.monitor.stop()


@in_loop
async def test_the_helper_runs_as_long_as_a_service_has_gpus(gpus: FakeGpus) -> None:
    watched = Watched(gpus.environ, PATIENT)
    watched.monitor.follow(WITH_GPUS)
    assert [gpu.number for gpu in (await watched.known()).gpus] == ["0", "1"]
    first = watched.helper
    watched.monitor.follow(WITH_GPUS)
    assert watched.helper == first
    watched.monitor.follow(NO_GPUS)
    assert watched.monitor.snapshot is None
    await watched.until(lambda: not runs(first))
    watched.monitor.follow(WITH_GPUS)
    await watched.known()
    second = watched.helper
    await watched.monitor.stop()
    assert not runs(second)


@in_loop
async def test_what_processes_take_is_told_to_those_who_listen(gpus: FakeGpus) -> None:
    watched = Watched(gpus.environ, PATIENT)
    watched.monitor.follow(WITH_GPUS)
    await watched.known()
    gpus.allocate("1", os.getpid(), GIB)
    await watched.until(lambda: watched.told[-1] and watched.told[-1].gpus[1].used == GIB)
    await watched.monitor.stop()


@in_loop
async def test_a_listener_that_fails_harms_nobody(gpus: FakeGpus, said: list[Any]) -> None:
    watched = Watched(gpus.environ, PATIENT)

    def fail(_: object) -> None:
        raise RuntimeError

    end = watched.monitor.subscribe(fail)
    watched.monitor.subscribe(watched.told.append)
    watched.monitor.follow(WITH_GPUS)
    await watched.until(lambda: len(watched.told) >= 4)
    assert "internal error" in names(said)
    end()
    said.clear()
    before = len(watched.told)
    await watched.until(lambda: len(watched.told) >= before + 4)
    assert names(said) == []
    await watched.monitor.stop()


@in_loop
async def test_a_fresh_look_does_not_wait_for_the_next(gpus: FakeGpus) -> None:
    watched = Watched(gpus.environ, PATIENT, interval=3600.0)
    monitor = watched.monitor
    assert await monitor.fresh() is None
    monitor.follow(WITH_GPUS)
    await watched.known()
    gpus.allocate("0", os.getpid(), GIB)
    found = await monitor.fresh(PATIENT)
    assert found is not None
    assert found.gpus[0].used == GIB
    gpus.hang()
    assert await monitor.fresh(0.05) is None
    await monitor.stop()


@in_loop
async def test_looks_at_the_same_time_are_all_answered(gpus: FakeGpus) -> None:
    watched = Watched(gpus.environ, PATIENT, interval=3600.0)
    watched.monitor.follow(WITH_GPUS)
    await watched.known()
    found = await asyncio.gather(*(watched.monitor.fresh(PATIENT) for _ in range(10)))
    assert None not in found
    await watched.monitor.stop()


@in_loop
async def test_the_end_of_watching_is_told(gpus: FakeGpus) -> None:
    watched = Watched(gpus.environ, PATIENT)
    watched.monitor.follow(WITH_GPUS)
    await watched.known()
    watched.monitor.follow(NO_GPUS)
    assert watched.told[-1] is None
    told = len(watched.told)
    await watched.monitor.stop()
    assert len(watched.told) == told


@in_loop
async def test_an_answer_without_a_helper_is_shared(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def ask(environ: Mapping[str, str]) -> GpuAnswer:
        asked.append(environ)
        return ask_gpus(environ)

    monkeypatch.setattr(monitor_module, "ask_gpus", ask)
    monkeypatch.setattr(monitor_module, "_ANSWER_SECONDS", PATIENT)
    monitor = GpuMonitor({**os.environ, **gpus.environ})
    answers = await asyncio.gather(*(monitor.answer() for _ in range(5)))
    answers.append(await monitor.answer())
    assert all(answer.snapshot is not None for answer in answers)
    assert len(asked) == 1
    monkeypatch.setattr(monitor_module, "_ANSWER_SECONDS", 0.0)
    await monitor.answer()
    assert len(asked) == 2


@in_loop
async def test_the_newest_reason_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "gpus.json"
    watched = Watched({"SERVD_GPU_BACKEND": f"fake:{path}"}, 1.0)
    watched.monitor.follow(WITH_GPUS)
    await watched.until(lambda: watched.monitor.latest)
    assert "FileNotFoundError" in (await watched.monitor.answer()).error
    path.write_text("[")
    await watched.until(lambda: "JSONDecodeError" in (watched.monitor.latest or NOTHING).error)
    await watched.monitor.stop()


@in_loop
async def test_a_driver_that_hangs_is_said_once_and_so_is_its_answer(
    gpus: FakeGpus, said: list[Any]
) -> None:
    watched = Watched(gpus.environ, 1.0)
    watched.monitor.follow(WITH_GPUS)
    await watched.known()
    first = watched.helper
    os.kill(first, signal.SIGSTOP)
    await watched.until(lambda: watched.monitor.snapshot is None)
    assert watched.told[-1] is None
    (entry,) = said
    assert entry["event"] == "GPU driver does not answer"
    assert entry["error"] == "no answer for 1 s"
    assert entry["next_action"]
    await watched.known()
    assert not runs(first)
    assert names(said) == ["GPU driver does not answer", "GPU driver answers again"]
    assert watched.faults == []
    await watched.monitor.stop()


@in_loop
async def test_a_helper_that_is_killed_is_replaced_without_a_word(
    gpus: FakeGpus, said: list[Any]
) -> None:
    watched = Watched(gpus.environ, 5.0)
    watched.monitor.follow(WITH_GPUS)
    await watched.known()
    first = watched.helper
    os.kill(first, signal.SIGKILL)
    await watched.until(lambda: watched.monitor.helper_pid not in (first, None))
    before = len(watched.told)
    await watched.until(lambda: len(watched.told) > before)
    assert None not in watched.told
    assert names(said) == []
    await watched.monitor.stop()


@in_loop
async def test_a_machine_without_a_driver_is_said_once(tmp_path: Path, said: list[Any]) -> None:
    path = tmp_path / "gpus.json"
    watched = Watched({"SERVD_GPU_BACKEND": f"fake:{path}"}, 1.0)
    watched.monitor.follow(WITH_GPUS)
    helpers = {watched.monitor.helper_pid}

    def several() -> bool:
        helpers.add(watched.monitor.helper_pid)
        return len(helpers - {None}) >= 3

    await watched.until(several)
    assert names(said) == ["GPUs not measured"]
    assert "gpus.json" in said[0]["error"]
    FakeGpus(path)
    await watched.known()
    assert names(said) == ["GPUs not measured", "GPUs measured"]
    await watched.monitor.stop()


@in_loop
async def test_errors_of_gpus_are_told(gpus: FakeGpus) -> None:
    watched = Watched(gpus.environ, PATIENT)
    watched.monitor.follow(WITH_GPUS)
    await watched.known()
    gpus.fault("GPU-fake-0", 79, "fell off")
    await watched.until(lambda: len(watched.faults) == 1)
    gpus.change("GPU-fake-0", errors=2)
    await watched.until(lambda: len(watched.faults) == 2)
    gpus.vanish("GPU-fake-1")
    await watched.until(lambda: len(watched.faults) == 3)
    assert watched.faults == [
        GpuFault("GPU-fake-0", 79, "fell off"),
        GpuFault("GPU-fake-0", 0, "uncorrectable memory errors rose from 0 to 2"),
        GpuFault("GPU-fake-1", 0, "the driver does not list it any more"),
    ]
    assert [gpu.id for gpu in (await watched.known()).gpus] == ["GPU-fake-0"]
    await watched.monitor.stop()


@in_loop
async def test_a_gpu_that_vanishes_while_the_driver_hangs_is_told_after(gpus: FakeGpus) -> None:
    watched = Watched(gpus.environ, 1.0)
    watched.monitor.follow(WITH_GPUS)
    await watched.known()
    gpus.hang()
    await watched.until(lambda: watched.monitor.snapshot is None)
    gpus.vanish("GPU-fake-1")
    gpus.hang(hang=False)
    await watched.until(lambda: watched.faults)
    assert [fault.gpu for fault in watched.faults] == ["GPU-fake-1"]
    await watched.monitor.stop()


@pytest.mark.parametrize(
    "garbage",
    [
        "b'garbage\\n'",
        "b'\\xff\\xfe\\n' * 1000",
        "b'[' * 100000 + b'\\n'",
        'b\'{"snapshot": {"gpus": [{"id": "a", "total": "x"}]}}\\n\'',
        "b'x' * (8 << 20)",
    ],
)
@in_loop
async def test_garbage_of_a_helper_is_the_end_of_it(
    gpus: FakeGpus, said: list[Any], monkeypatch: pytest.MonkeyPatch, garbage: str
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(environ: Mapping[str, str], interval: float) -> StartedHelper:
        if started:
            return start_helper(environ, interval)
        ours, theirs = socket.socketpair()
        code = f"import os, time\nwith open(0, 'wb', 0) as file: file.write({garbage})\n"
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", code + "time.sleep(1000)"], stdin=theirs.fileno()
            )
        )
        theirs.close()
        return StartedHelper(started[0], ours)

    monkeypatch.setattr(helper_link, "start_helper", start)
    watched = Watched(gpus.environ, 5.0)
    watched.monitor.follow(WITH_GPUS)
    assert len((await watched.known()).gpus) == 2
    assert started[0].poll() is not None
    assert watched.told.count(None) == 0
    assert names(said) == []
    await watched.monitor.stop()
