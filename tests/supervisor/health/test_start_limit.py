"""A start may take longer while the worker asks for time, or makes progress."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping

import pytest

from servd.supervisor.exits import FailedStartError
from servd.supervisor.generation import Generation
from servd.supervisor.health import memory
from servd.supervisor.health.start_limit import NOTICEABLE_BYTES

from support.fake_worker import NEVER, Fakes, Script
from support.harness import Servd, wait_until
from support.virtual_time import now, virtual_time

APP = """
    [services.web]
    app = "main:app"
    timeouts = {{ startup = "60s"{stall} }}
    {more}
"""


def config(stall: str = "", more: str = "") -> str:
    return APP.format(stall=f', stall = "{stall}"' if stall else "", more=more)


class Gpu:
    """Memory that the workers hold: it grows by `step` each second until `until`."""

    def __init__(self, until: float, step: int = NOTICEABLE_BYTES) -> None:
        self.until, self.step = until, step

    def __call__(self, pids: Collection[int]) -> int:
        return int(min(now(), self.until)) * self.step


async def fate(fakes: Fakes, text: str) -> tuple[float, str]:
    """When the worker of `text` was killed, and why; or when it got ready, and ""."""
    generation, _ = await fakes.begin(text, probation=True)
    return await outcome(generation)


async def outcome(generation: Generation) -> tuple[float, str]:
    try:
        await generation.until_ready()
    except FailedStartError as error:
        return round(now(), 1), str(error)
    return round(now(), 1), ""


async def asking(
    fakes: Fakes, text: str, told: Mapping[int, str], **more: str
) -> tuple[float, str]:
    """As `fate`, of a worker that at these times asks for so many microseconds."""
    generation, _ = await fakes.begin(text, probation=True)
    (worker,) = fakes.of("web")
    for at, usec in told.items():
        fields = {"EXTEND_TIMEOUT_USEC": usec, **more}
        worker.later(at, functools.partial(worker._notified, fields))
    return await outcome(generation)


@virtual_time
async def test_without_stall_and_gpus_the_startup_counts_alone(fakes: Fakes) -> None:
    fakes.gpu_memory = Gpu(1000)
    fakes.plays("web", Script(ready_after=NEVER))
    assert await fate(fakes, config()) == (
        60.0,
        "worker 0: was not ready within 60 s (timeouts.startup)",
    )


@pytest.mark.parametrize(
    ("stall", "more", "until", "killed_at", "reason"),
    [
        ("none", "gpus = 1", 100, 60.0, "was not ready within 60 s (timeouts.startup)"),
        ("", "gpus = 1", 0, 60.0, "was not ready within 60 s (timeouts.startup)"),
        ("", "gpus = 1", 100, 160.0, "made no progress for 60 s (timeouts.stall)"),
        ("20s", "", 0, 20.0, "made no progress for 20 s (timeouts.stall)"),
        ("20s", "", 100, 120.0, "made no progress for 20 s (timeouts.stall)"),
        ("20s", "", 9999, 600.0, "was not ready within 600 s (10 times timeouts.startup)"),
    ],
)
def test_who_makes_progress_gets_more_time(
    fakes: Fakes, stall: str, more: str, until: float, killed_at: float, reason: str
) -> None:
    @virtual_time
    async def run() -> None:
        fakes.gpu_memory = Gpu(until)
        fakes.plays("web", Script(ready_after=NEVER))
        assert await fate(fakes, config(stall, more)) == (killed_at, f"worker 0: {reason}")

    run()


@virtual_time
async def test_what_grows_too_slowly_is_no_progress(fakes: Fakes) -> None:
    fakes.gpu_memory = Gpu(9999, NOTICEABLE_BYTES // 100)
    fakes.plays("web", Script(ready_after=NEVER))
    assert (await fate(fakes, config("20s")))[0] == 20.0


@virtual_time
async def test_unseen_progress_does_not_shorten_a_start(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers may hide what processes read."""
    monkeypatch.setattr(memory, "bytes_read", lambda pid: None)
    fakes.plays("web", Script(ready_after=NEVER))
    assert (await fate(fakes, config("20s")))[0] == 60.0


@virtual_time
async def test_a_slow_start_that_goes_on_gets_ready(fakes: Fakes) -> None:
    fakes.gpu_memory = Gpu(9999)
    fakes.plays("web", Script(ready_after=500.0))
    assert await fate(fakes, config("20s")) == (500.0, "")


@virtual_time
async def test_a_worker_that_asks_for_time_gets_it(fakes: Fakes) -> None:
    fakes.plays("web", Script(ready_after=150.0))
    assert await asking(fakes, config(), {50: "60000000", 100: "60000000"}) == (150.0, "")


@virtual_time
async def test_a_worker_gets_no_more_time_than_it_asks_for(fakes: Fakes) -> None:
    fakes.plays("web", Script(ready_after=NEVER))
    told = {50: "60000000", 100: "30000000"}
    at, why = await asking(fakes, config(), told, STATUS="loading\n 7 of \x1b[1m12")
    asked = "was not ready within the time that it asked for (EXTEND_TIMEOUT_USEC)"
    assert why == f'worker 0: {asked}; its last status was "loading 7 of \\x1b[1m12"'
    assert at == 130.0


@pytest.mark.parametrize("usec", ["1000", "-5", "many", "", "²", "9" * 5000])
def test_a_worker_that_asks_for_nonsense_keeps_its_time(fakes: Fakes, usec: str) -> None:
    @virtual_time
    async def run() -> None:
        fakes.plays("web", Script(ready_after=NEVER))
        expected = 600.0 if usec.startswith("9") else 60.0
        assert (await asking(fakes, config(), {10: usec}))[0] == expected

    run()


LOADING = """
    import contextlib, os, time
    import servd

    @contextlib.asynccontextmanager
    async def lifespan(app):
        servd.loading("shard 1 of 2", extend="5m")
        while not os.path.exists("go.on"):
            time.sleep(0.01)
        yield

    from fastapi import FastAPI
    app = FastAPI(lifespan=lifespan)
"""


def test_how_far_a_start_has_come_is_shown(servd: Servd) -> None:
    text = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\ntimeouts.startup = "2s"\n'
    daemon = servd(text.replace("2s", "60s"), main_py=LOADING)
    wait_until(lambda: "worker 0: shard 1 of 2" in daemon.cli("status").stdout, "it is shown")
    (servd.folder / "go.on").touch()
    daemon.ready()
    assert daemon.service("web")["processes"][0]["status_text"] is None
    assert daemon.stop() == 0


READING = """
    import os, time
    print("begins", flush=True)
    until = time.monotonic() + float(os.environ["READS_FOR"])
    while time.monotonic() < until:
        with open("/dev/zero", "rb") as file:
            file.read(4 * 2**20)
        time.sleep(0.05)
    while os.environ["HANGS"] == "1":
        time.sleep(0.05)
    import socket
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(
        b"READY=1", os.environ["NOTIFY_SOCKET"])
    time.sleep(600)
"""


def test_a_program_that_reads_is_not_killed_and_one_that_hangs_is(servd: Servd) -> None:
    text = """
        [services.model]
        command = ["python", "program.py"]
        ready = "notify"
        timeouts = {{ startup = "2s", stall = "{stall}" }}
        env = {{ READS_FOR = "{reads}", HANGS = "{hangs}" }}
    """
    daemon = servd(text.format(stall="10s", reads=5, hangs=0), program_py=READING)
    daemon.wait_for("service ready", service="model")
    assert not daemon.find("worker exited")
    report = daemon.reload(text.format(stall="2s", reads=0, hangs=1))
    assert "made no progress for 2 s (timeouts.stall)" in report["detail"]
    assert daemon.stop() == 0
