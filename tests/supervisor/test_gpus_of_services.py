"""Services on GPUs that a file describes: who waits for room, who is refused, who is replaced."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.apps import PLAIN, web
from support.gpus import GIB, FakeGpus
from support.harness import Servd, ServdProcess, command, wait_until
from support.load import client_of, under_load

APP = """
import os
{fragment}
allocate(int(os.environ["HOLDS"]) << 30)

async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/grow":
            allocate(int(os.environ["GROWS"]) << 30)
        body = os.environ["CUDA_VISIBLE_DEVICES"].encode()
        await send({{"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"%d" % len(body))]}})
        await send({{"type": "http.response.body", "body": body}})
"""


def service(name: str, gpus: str, holds: int, *keys: str) -> str:
    lines = [
        f"[services.{name}]", 'app = "main:app"', 'listen = "127.0.0.1:0"', "log.access = false",
        f"gpus = {gpus}", f'env = {{ HOLDS = "{holds}", GROWS = "13" }}', *keys,
    ]  # fmt: skip
    return "\n".join((*lines, ""))


LLM = service("llm", '{ memory = "70GiB" }', 70)


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus.json")


@contextlib.contextmanager
def stranger(gpus: FakeGpus, memory: int) -> Iterator[subprocess.Popen[bytes]]:
    """A program that holds memory until it ends."""
    process = subprocess.Popen(["sleep", "1000"])
    try:
        gpus.hold("0", process.pid, memory, "trainer")
        yield process
    finally:
        process.kill()
        process.wait()


def start(servd: Servd, gpus: FakeGpus, config: str) -> ServdProcess:
    app = APP.format(fragment=gpus.app_fragment)
    return servd(config, main_py=app, environ=gpus.environ)


def measured(daemon: ServdProcess, gpus: FakeGpus, times: int) -> None:
    """Waits until the daemon has looked at the GPUs this often since now."""
    for degrees in range(times):
        gpus.change("0", temperature=50.0 + degrees)

        def is_seen(degrees: int = degrees) -> bool:
            (gpu,) = daemon.ask("GET", "/v1/gpus").json()["gpus"]
            return bool(gpu["temperature_celsius"] == 50.0 + degrees)

        wait_until(is_seen, "the GPUs are looked at")


def test_a_worker_waits_until_a_stranger_has_left(servd: Servd, gpus: FakeGpus) -> None:
    with stranger(gpus, 58 * GIB) as trainer:
        daemon = start(servd, gpus, LLM)
        said = daemon.wait_for("worker waits for GPU", service="llm")
        held = f"58 GiB held by pid {trainer.pid} (trainer, not servd's)"
        assert said["reason"] == f"GPU 0: 22 of 70 GiB free, {held}"
        shown = daemon.service("llm")
        assert (shown["state"], shown["error"]) == ("starting", f"worker 0: {said['reason']}")
        assert not daemon.find("worker started")
    daemon.ready()
    assert daemon.service("llm")["state"] == "ready"
    assert daemon.get("llm").text == "0"
    assert not daemon.service("llm")["error"]


def test_two_services_start_on_a_gpu_one_after_the_other(servd: Servd, gpus: FakeGpus) -> None:
    share = '{ share = 0.3, memory = "9GiB" }'
    daemon = start(servd, gpus, service("a", share, 9) + service("b", share, 9)).ready()
    steps = [
        e["event"] for e in daemon.events if e.get("event") in ("worker started", "worker ready")
    ]
    assert steps == ["worker started", "worker ready"] * 2


def test_a_worker_over_its_limit_is_replaced(servd: Servd, gpus: FakeGpus) -> None:
    limited = service("ocr", '{ share = 0.25, memory = "9GiB" }', 9, 'limits.gpu_memory = "12GiB"')
    daemon = start(servd, gpus, limited).ready()
    (old,) = daemon.pids("ocr")
    measured(daemon, gpus, 3)
    daemon.get("ocr", "/grow")
    recycled = daemon.wait_for("worker recycled", reason="gpu_memory")
    assert recycled["pid"] == old
    wait_until(lambda: daemon.pids("ocr") not in ([], [old]), "another worker serves")
    asked = daemon.find("worker recycle requested")[0]
    assert (asked["gpu"], asked["bytes"]) == ("0", 13 * GIB)
    plan = daemon.cli("plan")
    assert "services.ocr.gpus: declared 9GiB, peak 13GiB" in plan.stderr
    assert daemon.upgrade()["outcome"] == "replaced"
    assert "declared 9GiB, peak 13GiB" in daemon.cli("plan").stderr


def test_in_a_container_nobody_is_named_and_nobody_is_replaced(
    servd: Servd, gpus: FakeGpus
) -> None:
    gpus.write(names_processes=False)
    limited = service("ocr", '{ share = 0.25, memory = "9GiB" }', 9, 'limits.gpu_memory = "8GiB"')
    with stranger(gpus, 75 * GIB):
        daemon = start(servd, gpus, limited)
        said = daemon.wait_for("worker waits for GPU", service="ocr")
        assert said["reason"] == "GPU 0: 5 of 9 GiB free"
    daemon.ready()
    assert not daemon.find("worker recycle requested")
    assert not daemon.find("worker recycle skipped")


def test_a_driver_that_hangs_holds_up_no_start(servd: Servd, gpus: FakeGpus) -> None:
    with stranger(gpus, 58 * GIB):
        daemon = start(servd, gpus, LLM)
        daemon.wait_for("worker waits for GPU", service="llm")
        (helper,) = [p for p in daemon.family() if "servd.gpu" in p.cmdline()]
        helper.send_signal(signal.SIGSTOP)
        try:
            daemon.wait_for("GPU driver does not answer")
            daemon.wait_for("worker started", service="llm")
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                helper.send_signal(signal.SIGCONT)
        daemon.ready()


def test_check_refuses_what_cannot_fit_at_its_line(servd: Servd, gpus: FakeGpus) -> None:
    ocr = service("ocr", '{ share = 0.25, memory = "10GiB" }', 10)
    text = service("llm", '{ share = 0.5, memory = "70GiB" }', 70) + ocr
    servd.write(servd_toml=text, main_py="")
    line = text.splitlines().index('gpus = { share = 0.25, memory = "10GiB" }') + 1
    for arguments in (("check",), ("plan",)):
        done = command(*arguments, folder=servd.folder, environ=gpus.environ)
        assert done.returncode == 78
        assert (
            f"servd.toml:{line}:8: services.ocr.gpus: llm 70GiB + ocr 10GiB, but a GPU has 80 GiB,"
            " 0.5 GiB of it for each worker's CUDA context"
        ) in done.stderr


def test_more_workers_than_fit_are_refused_with_the_sum(servd: Servd, gpus: FakeGpus) -> None:
    daemon = start(servd, gpus, service("ocr", '{ share = 0.1, memory = "30GiB" }', 30)).ready()
    done = daemon.cli("scale", "ocr=3")
    assert done.returncode == 1
    assert "ocr 3 x 30GiB, but a GPU has 80 GiB" in done.stderr
    assert daemon.cli("scale", "ocr=2").returncode == 0
    assert len(daemon.pids("ocr")) == 2


def test_a_reload_is_undone_when_room_never_comes(servd: Servd, gpus: FakeGpus) -> None:
    old = service("ocr", '{ share = 0.1, memory = "30GiB" }', 30, 'timeouts.startup = "3s"')
    daemon = start(servd, gpus, old).ready()
    before = daemon.pids("ocr")
    with stranger(gpus, 40 * GIB):
        report = daemon.reload(old.replace('GROWS = "13"', 'GROWS = "14"'))
        assert report["outcome"] == "rolled_back"
        assert "no room for 3 s (timeouts.startup): GPU 0: 10 of 30 GiB free" in report["detail"]
        assert "40 GiB held by pid" in report["detail"]
    assert daemon.pids("ocr") == before
    assert daemon.service("ocr")["state"] == "ready"


def test_what_fills_its_gpu_is_recreated_and_the_plan_says_so(servd: Servd, gpus: FakeGpus) -> None:
    daemon = start(servd, gpus, LLM).ready()
    daemon.edit(LLM.replace('GROWS = "13"', 'GROWS = "14"'))
    plan = daemon.cli("plan").stdout
    assert "roll  (recreate: 70.5 GiB more are needed, 9.5 are free)" in plan
    assert daemon.cli("reload").returncode == 0
    assert daemon.get("llm").text == "0"


def test_a_new_daemon_takes_over_what_fills_its_gpu(servd: Servd, gpus: FakeGpus) -> None:
    daemon = start(servd, gpus, LLM).ready()
    (before,) = daemon.pids("llm")
    assert daemon.upgrade()["outcome"] == "replaced"
    wait_until(lambda: daemon.service("llm")["state"] == "ready", "the new worker is ready")
    assert daemon.pids("llm") != [before]
    assert daemon.get("llm").text == "0"


ROLLED = """
{fragment}
import os

if os.environ["V"] == "broken":
    raise SystemExit("this version fails")
allocate(70 << 30)
{app}
"""


def test_a_model_that_fills_its_gpu_is_rolled_and_undone_without_a_lost_request(
    servd: Servd, gpus: FakeGpus
) -> None:
    """Connections wait in the queue of the socket while no worker is there."""

    def config(value: str) -> str:
        return web(value, workers=1, extra='gpus = { memory = "70GiB" }')

    code = ROLLED.format(fragment=gpus.app_fragment, app=textwrap.dedent(PLAIN))
    daemon = servd(config("one"), main_py=code, environ=gpus.environ).ready()

    def roll() -> None:
        assert daemon.reload(config("two"))["outcome"] == "applied"

    def fail() -> None:
        assert daemon.reload(config("broken"))["outcome"] == "rolled_back"

    tally = under_load(client_of(daemon), roll, fail)
    assert tally.lost == []
    assert set(tally.answers) == {"one", "two"}
    assert daemon.get("web").text == "two"
    assert daemon.service("web")["workers"] == {"desired": 1, "ready": 1}
    assert daemon.stop() == 0
