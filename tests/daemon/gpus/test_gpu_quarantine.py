"""A GPU that fails is taken out of use, and its workers get another one, or wait."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.gpus import FakeGpus
from support.harness import Servd, ServdProcess, wait_until

APP = """
    import os

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        visible = os.environ["CUDA_VISIBLE_DEVICES"]
        await send({"type": "http.response.body", "body": visible.encode()})
"""
CONFIG = """
    [daemon]
    gpu_errors = "{errors}"
    [services.llm]
    app = "main:app"
    listen = "127.0.0.1:0"
    gpus = 1
    [[hooks]]
    on = ["gpu_failed"]
    command = ["sh", "-c", "cat > hooked~ && mv hooked~ hooked"]
"""


def start(
    servd: Servd, folder: Path, gpus: int, errors: str = "quarantine"
) -> tuple[ServdProcess, FakeGpus]:
    fake = FakeGpus(folder / "gpus.json", gpus)
    config = CONFIG.format(errors=errors)
    daemon = servd(config, main_py=APP, environ=fake.environ).ready()
    wait_until(lambda: daemon.ask("GET", "/v1/gpus").json()["gpus"], "the GPUs are known")
    wait_until(lambda: state_of(daemon, "GPU-fake-0") == "ok", "the monitor knows them")
    return daemon, fake


def state_of(daemon: ServdProcess, gpu: str) -> str:
    states = ("ok", "quarantined")
    found = [s for s in states if daemon.metric("servd_gpu_state", gpu=gpu, state=s) == 1]
    return found[0] if found else ""


def failed(daemon: ServdProcess, gpu: str = "GPU-fake-0") -> dict[str, Any]:
    return daemon.wait_for("GPU failed", gpu=gpu)


@pytest.mark.parametrize("way", ["xid", "ecc", "trouble", "gone"])
def test_its_workers_get_another_gpu(servd: Servd, tmp_path: Path, way: str) -> None:
    daemon, fake = start(servd, tmp_path, 2)
    (before,) = daemon.pids("llm")
    assert daemon.get("llm", "/").text == "0"
    match way:
        case "xid":
            fake.fault("GPU-fake-0", 79, "GPU has fallen off the bus")
        case "ecc":
            fake.change("GPU-fake-0", errors=1)
        case "trouble":
            fake.change("GPU-fake-0", trouble="a row remap is pending")
        case "gone":
            fake.vanish("GPU-fake-0")
    event = failed(daemon)
    assert event["workers"] == ["llm worker 0"]
    wait_until(lambda: daemon.pids("llm") not in ([], [before]), "another worker")
    wait_until(lambda: daemon.get("llm", "/").text == "1", "it has the other GPU")
    assert state_of(daemon, "GPU-fake-0") == "quarantined"
    assert state_of(daemon, "GPU-fake-1") == "ok"
    wait_until((daemon.folder / "hooked").exists, "the hook")
    hooked = json.loads((daemon.folder / "hooked").read_text())
    assert (hooked["hook"], hooked["gpu"]) == ("gpu_failed", "GPU-fake-0")
    xid = "79" if way == "xid" else "0"
    assert daemon.metric("servd_gpu_errors_total", gpu="GPU-fake-0", xid=xid) == 1
    assert len(daemon.find("GPU failed")) == 1


def test_without_another_gpu_the_service_says_why_it_is_down(servd: Servd, tmp_path: Path) -> None:
    daemon, fake = start(servd, tmp_path, 1)
    (before,) = daemon.pids("llm")
    fake.fault("GPU-fake-0", 94, "Contained ECC error")
    failed(daemon)
    daemon.wait_for("worker recycled", reason="gpu_failed", pid=before)
    reason = "GPU 0 is in quarantine: Xid 94: Contained ECC error"
    wait_until(lambda: reason in (daemon.service("llm")["error"] or ""), "the reason is shown")
    assert daemon.pids("llm") == []
    listed = daemon.ask("GET", "/v1/gpus").json()["gpus"][0]
    assert listed["quarantine"] == "Xid 94: Contained ECC error"
    changed = daemon.reload(CONFIG.format(errors="quarantine") + '[defaults]\nenv.A = "1"\n')
    assert changed["outcome"] == "rolled_back"
    assert reason in changed["detail"]
    done = daemon.cli("gpus", "release", "0")
    assert done.returncode == 0, done.stderr
    daemon.wait_for("GPU released", gpu="GPU-fake-0")
    wait_until(lambda: daemon.service("llm")["state"] == "ready", "it runs again")
    assert state_of(daemon, "GPU-fake-0") == "ok"
    again = daemon.cli("gpus", "release", "0")
    assert again.returncode != 0
    assert 'GPU "0" is not in quarantine' in again.stderr


def test_an_error_that_a_program_causes_is_only_said(servd: Servd, tmp_path: Path) -> None:
    daemon, fake = start(servd, tmp_path, 2)
    before = daemon.pids("llm")
    fake.fault("GPU-fake-0", 31, "MMU fault")
    found = daemon.wait_for("GPU error", gpu="GPU-fake-0", xid=31)
    assert found["workers"] == ["llm worker 0"]
    assert found["next_action"] == "none: a program has caused it"
    counted = {"gpu": "GPU-fake-0", "xid": "31"}
    wait_until(lambda: daemon.metric("servd_gpu_errors_total", **counted) == 1, "it is counted")
    assert daemon.pids("llm") == before
    assert state_of(daemon, "GPU-fake-0") == "ok"


def test_where_errors_are_reported_nothing_is_done(servd: Servd, tmp_path: Path) -> None:
    daemon, fake = start(servd, tmp_path, 2, "report")
    before = daemon.pids("llm")
    fake.fault("GPU-fake-0", 79)
    assert failed(daemon)["next_action"] == 'none: daemon.gpu_errors is "report"'
    wait_until((daemon.folder / "hooked").exists, "the hook")
    assert daemon.pids("llm") == before
    assert state_of(daemon, "GPU-fake-0") == "ok"


def test_where_all_are_gone_the_driver_is_to_blame(servd: Servd, tmp_path: Path) -> None:
    daemon, fake = start(servd, tmp_path, 2)
    before = daemon.pids("llm")
    fake.write(gpus=[])
    for gpu in ("GPU-fake-0", "GPU-fake-1"):
        found = daemon.wait_for("GPU error", gpu=gpu)
        assert found["next_action"] == "none: the driver has lost all GPUs"
    assert daemon.pids("llm") == before
    assert not daemon.find("GPU failed")


def test_the_next_daemon_knows_of_it(servd: Servd, tmp_path: Path) -> None:
    daemon, fake = start(servd, tmp_path, 2)
    fake.fault("GPU-fake-0", 79)
    failed(daemon)
    wait_until(lambda: daemon.get("llm", "/").text == "1", "it has the other GPU")
    daemon.upgrade()
    wait_until(lambda: state_of(daemon, "GPU-fake-0") == "quarantined", "it stays in quarantine")
    assert daemon.get("llm", "/").text == "1"
