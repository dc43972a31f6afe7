"""What a daemon shows of GPUs, and that their driver can harm it in no way."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.gpus import GIB, MEMORY_BYTES, FakeGpus, fake_gpu
from support.harness import Servd, ServdProcess, alive, command, wait_until

CONFIG = """
    [services.llm]
    app = "main:app"
    listen = "127.0.0.1:0"
    gpus = 1
    workers = 2

    [services.plain]
    app = "main:app"
    listen = "127.0.0.1:0"
    env = { PLAIN = "1" }
"""

APP = """
import os, subprocess, sys

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        if "PLAIN" not in os.environ:
            worker = int(os.environ["SERVD_WORKER"])
            allocate((2 + worker) << 30)
            code = FRAGMENT + "allocate(5 << 30)\\nimport time; time.sleep(1000)"
            if worker == 1:
                subprocess.Popen([sys.executable, "-c", code])
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus.json", 2)


def app_on(gpus: FakeGpus) -> str:
    """An app whose worker 0 holds 2 GiB of its GPU; worker 1 holds 3, and a child of it 5."""
    return f"FRAGMENT = {gpus.app_fragment!r}\n{gpus.app_fragment}\n{APP}"


def start(servd: Servd, gpus: FakeGpus, config: str = CONFIG) -> ServdProcess:
    return servd(config, main_py=app_on(gpus), environ=gpus.environ).ready()


def held(daemon: ServdProcess) -> list[list[tuple[str, int | None]]]:
    """Number and memory of the GPUs of each worker of `llm`."""
    processes = daemon.service("llm")["processes"]
    return [[(use["number"], use["memory_bytes"]) for use in p["gpus"]] for p in processes]


ALL = [[("0", 2 * GIB)], [("1", 8 * GIB)]]
UNKNOWN: list[list[tuple[str, int | None]]] = [[("0", None)], [("1", None)]]


def helpers(daemon: ServdProcess) -> list[psutil.Process]:
    """The processes that ask the driver."""
    found = []
    for process in alive(daemon.family()):
        try:
            if "servd.gpu" in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_a_worker_shows_what_it_and_its_children_hold(servd: Servd, gpus: FakeGpus) -> None:
    daemon = start(servd, gpus)
    wait_until(lambda: held(daemon) == ALL, "both workers show what they hold")
    first = daemon.service("llm")["processes"][0]["gpus"]
    named = {"id": "GPU-fake-0", "number": "0", "name": "Fake H100"}
    assert first == [{**named, "memory_bytes": 2 * GIB, "declared_bytes": None}]
    assert daemon.service("plain")["processes"][0]["gpus"] == []
    by_worker = [
        daemon.metric(
            "servd_worker_gpu_memory_bytes",
            service="llm",
            worker=str(worker),
            gpu=f"GPU-fake-{worker}",
        )
        for worker in (0, 1)
    ]
    assert by_worker == [2 * GIB, 8 * GIB]
    used = [
        daemon.metric("servd_gpu_memory_bytes", gpu="GPU-fake-1", state=state)
        for state in ("used", "free")
    ]
    assert used == [8 * GIB, MEMORY_BYTES - 8 * GIB]
    assert daemon.metric("servd_gpu_temperature_celsius", gpu="GPU-fake-0") == 40
    assert daemon.metric("servd_gpu_power_watts", gpu="GPU-fake-0") == 70
    assert daemon.metric("servd_gpu_utilization_ratio", gpu="GPU-fake-0") == 0
    assert daemon.metric("servd_gpu_ecc_errors_total", gpu="GPU-fake-0") == 0
    status = daemon.cli("status", COLUMNS="160").stdout
    assert "GPU" in status
    assert "0,1 10G" in status
    detail = daemon.cli("status", "llm", COLUMNS="160").stdout
    assert "0 2G" in detail
    assert "1 8G" in detail
    assert "0,1 10G" in daemon.cli("top", "--once", COLUMNS="160").stdout
    assert daemon.stop() == 0


def test_servd_gpus_names_workers_and_strangers(servd: Servd, gpus: FakeGpus) -> None:
    daemon = start(servd, gpus)
    wait_until(lambda: held(daemon) == ALL, "both workers show what they hold")
    gpus.hold("0", os.getpid(), 12 * GIB, "stranger\x1b[31m")
    listed: Any = None

    def all_listed() -> bool:
        nonlocal listed
        listed = json.loads(daemon.cli("gpus", "--json").stdout)
        return len(listed["gpus"][0]["holders"]) == 2

    wait_until(all_listed, "the stranger is listed")
    assert (listed["driver"], listed["names_processes"], listed["error"]) == ("fake 1", True, None)
    by_service = {h["service"]: h for h in listed["gpus"][0]["holders"]}
    assert by_service["llm"]["worker"] == 0
    assert by_service[None]["pid"] == os.getpid()
    assert {h["service"] for h in listed["gpus"][1]["holders"]} == {"llm"}
    shown = daemon.cli("gpus").stdout
    pids = daemon.pids("llm")
    assert f"pid {os.getpid()} (stranger\\x1b[31m), not of this servd: 12G" in shown
    assert f"llm worker 0, pid {pids[0]}: 2G" in shown
    assert "14/80G" in shown


def test_without_a_daemon_the_driver_is_asked(tmp_path: Path, gpus: FakeGpus) -> None:
    gpus.hold("1", os.getpid(), 3 * GIB, "python")
    done = command("gpus", folder=tmp_path, environ=gpus.environ)
    assert done.returncode == 0, done.stderr
    assert f"pid {os.getpid()} (python): 3G" in done.stdout
    missing = {"SERVD_GPU_BACKEND": f"fake:{tmp_path / 'none.json'}"}
    done = command("gpus", folder=tmp_path, environ=missing)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the GPUs are unknown: " in done.stderr
    done = command("gpus", "--json", folder=tmp_path, environ=missing)
    assert done.returncode == 1
    assert "none.json" in json.loads(done.stdout)["error"]


def test_a_driver_that_hangs_is_said_once_and_hurts_nobody(servd: Servd, gpus: FakeGpus) -> None:
    daemon = start(servd, gpus)
    wait_until(lambda: held(daemon) == ALL, "both workers show what they hold")
    (helper,) = helpers(daemon)
    pids = daemon.pids("llm")
    gpus.hang()
    daemon.wait_for("GPU driver does not answer")
    assert held(daemon) == UNKNOWN
    began = time.monotonic()
    for _ in range(20):
        daemon.status()
    assert time.monotonic() - began < 20
    assert daemon.get("llm").status_code == 200
    listed = json.loads(daemon.cli("gpus", "--json").stdout)
    assert listed["error"] == "no answer for 10 s"
    wait_until(lambda: not alive([helper]), "the helper that hangs is ended")
    gpus.hang(hang=False)
    daemon.wait_for("GPU driver answers again")
    wait_until(lambda: held(daemon) == ALL, "the memory is known again")
    assert daemon.pids("llm") == pids
    assert len(daemon.find("GPU driver does not answer")) == 1
    assert daemon.find("worker exited") == []
    assert daemon.stop() == 0


def test_a_helper_that_is_stopped_or_killed_is_replaced(servd: Servd, gpus: FakeGpus) -> None:
    daemon = start(servd, gpus)
    wait_until(lambda: held(daemon) == ALL, "both workers show what they hold")
    (first,) = helpers(daemon)
    first.kill()
    wait_until(lambda: helpers(daemon) and helpers(daemon) != [first], "there is another helper")
    gpus.allocate("0", daemon.pids("llm")[0], 4 * GIB)
    wait_until(lambda: held(daemon)[0] == [("0", 4 * GIB)], "it is listened to")
    assert daemon.find("GPU driver does not answer") == []
    (second,) = helpers(daemon)
    second.send_signal(signal.SIGSTOP)
    daemon.wait_for("GPU driver does not answer")
    daemon.wait_for("GPU driver answers again")
    assert not alive([second])
    assert daemon.get("llm").status_code == 200
    assert daemon.stop() == 0


def test_in_a_container_memory_is_known_per_gpu_alone(servd: Servd, gpus: FakeGpus) -> None:
    gpus.write(names_processes=False)
    daemon = start(servd, gpus)
    wait_until(
        lambda: daemon.metric("servd_gpu_memory_bytes", gpu="GPU-fake-1", state="used") == 8 * GIB,
        "the memory of the GPU is known",
    )
    assert held(daemon) == UNKNOWN
    names = {name for name, _ in daemon.samples()}
    assert "servd_worker_gpu_memory_bytes" not in names
    assert "0,1 -" in daemon.cli("status", COLUMNS="160").stdout
    assert "the driver does not tell which processes" in daemon.cli("gpus").stdout


NO_GPUS = """
    [services.plain]
    app = "main:app"
    listen = "127.0.0.1:0"
    env = { PLAIN = "1" }
"""


def test_a_helper_runs_only_while_a_service_has_gpus(servd: Servd, gpus: FakeGpus) -> None:
    daemon = start(servd, gpus, NO_GPUS)
    assert helpers(daemon) == []
    assert "GPU" not in daemon.cli("status", COLUMNS="160").stdout
    listed = json.loads(daemon.cli("gpus", "--json").stdout)
    assert [gpu["number"] for gpu in listed["gpus"]] == ["0", "1"]
    wait_until(lambda: helpers(daemon) == [], "the helper of one question has ended")
    daemon.reload(CONFIG)
    wait_until(lambda: held(daemon) == ALL, "the helper runs")
    first = helpers(daemon)
    assert len(first) == 1
    daemon.reload()
    assert helpers(daemon) == first
    daemon.reload(NO_GPUS)
    wait_until(lambda: helpers(daemon) == [], "the helper has ended")
    daemon.remember()
    assert daemon.stop() == 0


def test_no_helper_outlives_its_daemon(servd: Servd, gpus: FakeGpus) -> None:
    daemon = start(servd, gpus)
    wait_until(lambda: held(daemon) == ALL, "the helper runs")
    (helper,) = helpers(daemon)
    daemon.remember()
    daemon.send(signal.SIGKILL)
    daemon.wait()
    wait_until(lambda: not alive([helper]), "the helper has ended")


def test_a_daemon_that_replaces_another_has_a_helper_of_its_own(
    servd: Servd, gpus: FakeGpus
) -> None:
    daemon = start(servd, gpus)
    wait_until(lambda: held(daemon) == ALL, "the helper runs")
    (first,) = helpers(daemon)
    assert daemon.upgrade()["outcome"] == "replaced"
    wait_until(lambda: not alive([first]), "the helper of the old daemon has ended")
    wait_until(lambda: held(daemon) == ALL, "the new daemon knows the GPUs")
    assert len(helpers(daemon)) == 1
    assert daemon.stop() == 0


def test_workers_do_not_inherit_the_socket_of_the_helper(servd: Servd, gpus: FakeGpus) -> None:
    daemon = start(servd, gpus)
    wait_until(lambda: held(daemon) == ALL, "the helper runs")
    (helper,) = helpers(daemon)
    mine = os.readlink(f"/proc/{helper.pid}/fd/0")
    for process in daemon.family():
        if process != helper:
            fds = Path(f"/proc/{process.pid}/fd")
            assert mine not in {os.readlink(fd) for fd in fds.iterdir()}


def test_an_instance_of_a_gpu_is_shown_by_its_id(servd: Servd, gpus: FakeGpus) -> None:
    part = fake_gpu(0, id="MIG-12345678-aaaa", number="", parent="GPU-fake-0", total=10 * GIB)
    gpus.write(gpus=[fake_gpu(0), part])
    config = '[daemon]\ngpus = ["MIG-12345678-aaaa"]\n' + CONFIG.replace("workers = 2", "")
    daemon = start(servd, gpus, config)
    wait_until(lambda: held(daemon) == [[("", 2 * GIB)]], "the memory is known")
    assert "MIG-12345678 2G" in daemon.cli("status", COLUMNS="160").stdout
    assert "instance of GPU-fake-0" in daemon.cli("gpus").stdout
