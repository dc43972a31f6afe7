"""Out of descriptors: what serves goes on, it is said, and it passes by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from support.apps import PID
from support.faults import idling, without_descriptors
from support.harness import DEADLINE, Servd, wait_until

TWO_WORKERS = """
    include = ["conf.d/*.toml"]

    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    workers = 2
    restart = { backoff_max = "300ms", give_up_after = 3 }
    health = { path = "/", interval = "100ms", failures = 1 }
"""
NO_FILES = "Too many open files"


def test_a_daemon_without_descriptors_says_so_and_starts_workers_later(
    servd: Servd,
) -> None:
    (servd.folder / "conf.d").mkdir()
    daemon = servd(TWO_WORKERS, main_py=PID).ready()
    first, second = daemon.pids("web")
    answers: list[httpx.Response] = []
    late = threading.Thread(target=lambda: answers.append(daemon.ask("GET", "/v1/status")))
    reason = f"could not be started: {NO_FILES}"
    with daemon.admin() as admin, idling(daemon.pid):
        assert admin.post("/v1/reload", json={}).json()["outcome"] == "unchanged"
        with without_descriptors(daemon.pid):
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: len(daemon.find("worker exited", reason=reason)) >= 4, "it goes on")
            assert daemon.get("web").text == str(second)
            late.start()
            daemon.wait_for("cannot accept connections", error=NO_FILES)
            assert admin.get("/v1/status").json()["services"][0]["state"] == "degraded"
            refused = admin.post("/v1/reload", json={}).json()
            assert refused["detail"] == f"servd.toml: cannot read this file: {NO_FILES}"
            scaled = admin.post("/v1/services/web/scale", json={"workers": 3}).json()
            assert (scaled["outcome"], scaled["detail"]) == (
                "rolled_back",
                f"web: worker 2: {reason}",
            )
            assert admin.get("/metrics").status_code in (200, 503)
        wait_until(lambda: daemon.service("web")["state"] == "ready", "both serve again")
    late.join()
    assert answers[0].status_code == 200
    daemon.wait_for("accepting connections again")
    assert daemon.pids("web")[1] == second
    assert daemon.reload()["outcome"] == "unchanged"
    assert len(daemon.find("cannot accept connections")) == 1
    assert len(daemon.events) < 100
    assert "Traceback" not in daemon.output
    assert daemon.stop() == 0
    blamed = [event["error"] for event in daemon.find("worker recycle requested")]
    assert not blamed, "nobody is blamed for what the daemon lacks"


def test_the_first_question_without_descriptors_is_told_the_reason(servd: Servd) -> None:
    """What renders metrics is imported by the first who asks."""
    daemon = servd('[services.web]\ncommand = ["sleep", "1000"]\n').ready()
    with daemon.admin() as admin:
        assert admin.get("/livez").status_code == 200
        with without_descriptors(daemon.pid):
            answer = admin.get("/metrics")
        assert (answer.status_code, answer.json()["detail"]) == (503, NO_FILES)
    assert daemon.ask("GET", "/metrics").status_code == 200
    assert "Traceback" not in daemon.output


def test_an_edit_without_descriptors_is_applied_once_there_are_some(servd: Servd) -> None:
    """It takes nothing away meanwhile: a folder that cannot be read is no empty folder."""
    folder = servd.folder / "conf.d"
    folder.mkdir()
    (folder / "a.toml").write_text('[services.a]\ncommand = ["sleep", "1000"]\n')
    servd.watching = True
    daemon = servd('include = ["conf.d/*.toml"]\n').ready()
    (pid,) = daemon.pids("a")
    with without_descriptors(daemon.pid):
        (folder / "b.toml").write_text('[services.b]\ncommand = ["sleep", "1000"]\n')
        daemon.send(signal.SIGHUP)
        failed = daemon.wait_for("reload failed", reason="SIGHUP")
        assert failed["error"] == f"servd.toml: cannot read this file: {NO_FILES}"
    daemon.wait_for("worker ready", service="b")
    assert daemon.pids("a") == [pid]
    assert len(daemon.find("reload failed")) == 1


def test_a_pattern_without_descriptors_is_a_mistake_and_not_an_empty_list(servd: Servd) -> None:
    servd.write(a_toml="")
    code = f"""
import resource
from servd.core.exhaustion import glob_or_raise
assert glob_or_raise("{servd.folder}/*.toml") == ["{servd.folder}/a.toml"]
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    glob_or_raise("{servd.folder}/*.toml")
except OSError as error:
    print(error.strerror)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == NO_FILES, found.stderr


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_worker_without_descriptors_resets_nobody_and_is_not_taken_for_hung(
    servd: Servd, loop: str
) -> None:
    daemon = servd(
        f"""
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        uvicorn = {{ loop = "{loop}" }}
        watchdog = "2s"
        """,
        main_py=PID,
    ).ready()
    (pid,) = daemon.pids("web")
    url = httpx.URL(daemon.url("web"))
    with (
        httpx.Client(base_url=url, timeout=DEADLINE) as kept,
        contextlib.ExitStack() as waiting,
        idling(pid, acts=0.1),
    ):
        assert kept.get("/").text == str(pid)
        with without_descriptors(pid):
            clients = []
            for _ in range(20):
                client = socket.create_connection((str(url.host), url.port or 0), timeout=DEADLINE)
                clients.append(waiting.enter_context(client))
                client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            daemon.wait_for("cannot accept connections", error=NO_FILES, worker=0, pid=pid)
            until = time.monotonic() + 4.5
            while time.monotonic() < until:  # over twice the watchdog's time
                assert kept.get("/").text == str(pid)
                time.sleep(0.05)
        for client in clients:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    daemon.wait_for("accepting connections again", worker=0)
    assert daemon.pids("web") == [pid]
    assert len(daemon.find("cannot accept connections")) == 1
    assert daemon.stop() == 0
    assert not daemon.find("worker hung")


def test_a_worker_without_descriptors_leaves_new_connections_to_the_others(servd: Servd) -> None:
    (servd.folder / "conf.d").mkdir()
    daemon = servd(TWO_WORKERS.replace("health", "#"), main_py=PID).ready()
    starved, other = daemon.pids("web")
    with without_descriptors(starved):
        assert {daemon.get("web").text for _ in range(20)} == {str(other)}
    assert daemon.pids("web") == [starved, other]


def test_a_worker_without_descriptors_drains(servd: Servd) -> None:
    daemon = servd(
        '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n', main_py=PID
    ).ready()
    (pid,) = daemon.pids("web")
    with daemon.asking("web", "/slow") as (answer,):
        daemon.begun("web")
        with without_descriptors(pid):
            assert daemon.act("web", "restart")["outcome"] == "applied"
            assert answer.result().text == str(pid)
            daemon.wait_for("worker stopped", pid=pid)
    assert daemon.stop() == 0
    assert not daemon.find("worker killed")


def test_a_start_that_lacks_one_descriptor_gives_the_others_back() -> None:
    code = """
import os, resource
from servd.supervisor.counters import CounterRegistry
spare = os.dup(0)
resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, spare + 1))
os.close(spare)
for _ in range(3):
    try:
        CounterRegistry().open("web")
    except OSError as error:
        print(error.strerror)
os.close(os.dup(0))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.splitlines() == [NO_FILES] * 3, found.stderr
    assert found.returncode == 0
