"""The process that did the work has ended, and the front of the worker lives on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from servd.supervisor.gpus import HeldMemory
from servd.supervisor.health.engine import EngineWatch

from support.gpus import GIB, FakeGpus
from support.harness import Servd, ServdProcess, wait_until

LEADER = 100


class Looks:
    """A worker with the pid 100, its living processes, and a watch that looks each second."""

    def __init__(self) -> None:
        self.alive = {LEADER: 1}
        self.strangers: set[int] = set()
        self.watch = EngineWatch(
            LEADER,
            started=self.alive.get,
            name=lambda pid: {812: "python"}.get(pid, ""),
            family=lambda _: self.alive.keys() - self.strangers,
        )
        self.now = 0.0

    def pass_by(self, seconds: int, **held: int) -> str:
        """Returns what is said first in so many seconds; `held`: GiB of processes (p812=61)."""
        processes = {int(pid[1:]): HeldMemory(memory * GIB) for pid, memory in held.items()}
        for pid in processes:
            self.alive.setdefault(pid, 1)
        for _ in range(seconds):
            self.now += 1.0
            if said := self.watch.look(processes, self.now):
                return said
        return ""


def test_an_engine_that_has_ended_and_is_not_replaced_is_named() -> None:
    looks = Looks()
    assert not looks.pass_by(20, p812=61, p813=1)
    del looks.alive[812], looks.alive[813]
    assert not looks.pass_by(5)
    assert looks.pass_by(2) == "engine: pid 812 (python) with 61 GiB ended"


def test_another_one_that_takes_its_place_in_time_is_all_that_is_needed() -> None:
    looks = Looks()
    looks.pass_by(20, p812=61)
    del looks.alive[812]
    assert not looks.pass_by(4)
    assert not looks.pass_by(20, p900=61)


def test_a_child_that_held_memory_for_one_job_is_no_engine() -> None:
    looks = Looks()
    looks.pass_by(3)
    looks.pass_by(9, p812=4)
    del looks.alive[812]
    assert not looks.pass_by(60)


def test_what_came_late_into_the_figures_was_there_when_the_worker_became_ready() -> None:
    looks = Looks()
    looks.pass_by(1)
    looks.pass_by(20, p812=61)
    del looks.alive[812]
    assert looks.pass_by(20)


def test_another_one_may_take_long_to_load() -> None:
    looks = Looks()
    looks.pass_by(20, p812=61)
    del looks.alive[812]
    looks.pass_by(3)
    looks.alive[900] = 2
    assert not looks.pass_by(60)
    del looks.alive[900]
    assert looks.pass_by(20)


def test_an_older_process_takes_no_ones_place() -> None:
    looks = Looks()
    looks.alive[813] = 1
    looks.pass_by(20, p812=61)
    del looks.alive[812]
    assert looks.pass_by(20)


def test_while_the_daemon_is_stopped_no_time_passes() -> None:
    looks = Looks()
    looks.pass_by(20, p812=61)
    del looks.alive[812]
    looks.pass_by(1)
    looks.now += 3600.0
    assert not looks.pass_by(3)
    assert looks.pass_by(2)


@pytest.mark.parametrize("other", ["p100", "p813"])
def test_while_a_process_of_the_worker_holds_memory_it_works(other: str) -> None:
    looks = Looks()
    looks.pass_by(20, p812=61, **{other: 2})
    del looks.alive[812]
    assert not looks.pass_by(60, **{other: 2})


def test_an_engine_that_lives_may_have_freed_its_memory() -> None:
    looks = Looks()
    looks.pass_by(20, p812=61)
    assert not looks.pass_by(60)


def test_a_pid_that_is_used_again_is_another_process() -> None:
    looks = Looks()
    looks.pass_by(20, p812=61)
    looks.alive[812] = 2
    looks.strangers.add(812)
    assert looks.pass_by(20)


def test_a_helper_that_had_memory_for_a_moment_is_no_engine() -> None:
    looks = Looks()
    looks.pass_by(3, p812=1)
    del looks.alive[812]
    assert not looks.pass_by(60)


def test_time_without_figures_does_not_count() -> None:
    looks = Looks()
    looks.pass_by(20, p812=61)
    del looks.alive[812]
    looks.pass_by(4)
    looks.now += 100.0
    looks.watch.unknown()
    assert not looks.pass_by(5)
    assert looks.pass_by(2)


APP = """
import os, subprocess, sys
from pathlib import Path

CODE = {code!r} + '''
allocate(61 << 30)
import time
time.sleep(3600)
'''
engine = subprocess.Popen([sys.executable, "-c", CODE])
Path(f"engine-{{os.getpid()}}").write_text(str(engine.pid))

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": str(os.getpid()).encode()}})
"""

CONFIG = """
    [services.llm]
    app = "main:app"
    listen = "127.0.0.1:0"
    gpus = {{ memory = "70GiB" }}
    health = {{ interval = "500ms" }}
    watchdog_tree = {}
"""


@pytest.mark.parametrize("tree", ["true", "false"])
def test_a_worker_whose_engine_was_killed_is_replaced(
    servd: Servd, tmp_path: Path, tree: str
) -> None:
    fake = FakeGpus(tmp_path / "gpus.json")
    app = APP.format(code=fake.app_fragment)
    daemon = servd(CONFIG.format(tree), main_py=app, environ=fake.environ).ready()
    (before,) = daemon.pids("llm")
    engine = int((daemon.folder / f"engine-{before}").read_text())

    def holds() -> object:
        (one,) = daemon.service("llm")["processes"]
        return one.get("gpus") and one["gpus"][0]["memory_bytes"]

    wait_until(lambda: holds() == 61 * GIB, "the memory of the engine is known")
    wait_for_looks(daemon, fake)
    os.kill(engine, signal.SIGKILL)
    if tree == "false":
        wait_until(lambda: not holds(), "the memory is free")
        wait_for_looks(daemon, fake)
        assert daemon.pids("llm") == [before]
        assert not daemon.find("worker recycle requested")
        return
    found = daemon.wait_for("worker recycle requested", reason="engine", pid=before)
    assert found["error"].startswith(f"engine: pid {engine} (python")
    assert found["error"].endswith(" with 61 GiB ended")
    wait_until(lambda: daemon.pids("llm") not in ([], [before]), "another worker")
    wait_until(lambda: holds() == 61 * GIB, "another engine")
    assert daemon.service("llm")["state"] == "ready"
    labels = {"service": "llm", "reason": "engine"}
    assert daemon.metric("servd_worker_restarts_total", **labels) == 1


def wait_for_looks(daemon: ServdProcess, fake: FakeGpus) -> None:
    """Waits for so many new figures that a process counts as an engine, or would be missed. They
    come a second apart.
    """
    for look in range(8):
        fake.change("GPU-fake-0", temperature=look)

        def is_there(look: int = look) -> bool:
            return daemon.metric("servd_gpu_temperature_celsius", gpu="GPU-fake-0") == look

        wait_until(is_there, "new figures")
