"""`servd plan --capacity`, with a daemon and without."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.harness import DEADLINE, Servd, ServdProcess, command

CONFIG = """
[services.web]
app = "main:app"
listen = "127.0.0.1:0"
depends_on = ["model"]
health.path = "/health"

[services.model]
app = "model:app"
limits = { concurrency = 2, queue = 200 }

[services.redis]
command = ["sleep", "1000"]
"""
MAIN = """
import servd

model = servd.depends("model")


async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/":
            await model.get("/")
            await model.get("/")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
"""
MODEL = """
import asyncio


async def app(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.sleep(0.02)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
"""


def send(daemon: ServdProcess, requests: int) -> None:
    url = daemon.url("web")
    with httpx.Client(timeout=DEADLINE) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get(url).status_code, range(requests)))
    assert answers == [200] * requests


def test_a_load_is_planned_from_what_was_measured(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=MAIN, model_py=MODEL).ready()
    unmeasured = daemon.cli("plan", "--capacity", "200")
    assert unmeasured.returncode == 1
    assert "not measured enough: web (0 requests). Send it load first" in unmeasured.stderr
    send(daemon, 150)
    answer = daemon.cli("plan", "--capacity", "200", "--json")
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    services: dict[str, Any] = {each["name"]: each for each in found["services"]}
    assert [*services] == ["model", "web"]
    assert services["web"]["calls"] == {"model": pytest.approx(2.0)}
    model = services["model"]
    assert model["arrivals"] == pytest.approx(400)
    assert model["service_ms"] >= 20  # without the wait of 8 clients for two places
    assert model["now"]["throughput"] < 101  # two places, 20 ms
    assert model["now"]["refused"] > 0.7
    assert model["needed"]["workers"] >= 6
    assert model["needed"]["utilisation"] <= 0.7
    assert services["web"]["needed"]["p95_ms"] > 40
    assert services["web"]["cpu_ms"] > 0
    shown = daemon.cli("plan", "--capacity", "web=200", "--utilisation", "50")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].split()[:5] == ["SERVICE", "WORKERS", "CPUS", "BUSY", "ANSWERED/S"]
    assert [line.split()[0] for line in lines[1:5]] == ["model", "needed", "web", "needed"]
    assert "model refuses" in shown.stderr


def test_health_probes_are_no_measurement(servd: Servd) -> None:
    config = CONFIG.replace(
        'health.path = "/health"', 'health = { path = "/h", interval = "100ms" }'
    )
    daemon = servd(config, main_py=MAIN, model_py=MODEL).ready()
    for _ in range(3):
        daemon.get("web", "/h")
    services = daemon.ask("GET", "/v1/measurements").json()["services"]
    assert {each["name"]: each["requests"] for each in services} == {
        "web": 0.0,
        "model": 0.0,
        "redis": 0.0,
    }


def test_service_times_are_given_where_no_daemon_runs(servd: Servd) -> None:
    servd.write(servd_toml=CONFIG, main_py=MAIN, model_py=MODEL)
    plan = ("plan", "--capacity", "50")
    nothing = command(*plan, folder=servd.folder)
    assert nothing.returncode == 1
    assert "servd is not running for this configuration" in nothing.stderr
    assert "--service-time" in nothing.stderr
    times = ("--service-time", "web=5ms,cpu=2ms", "--service-time", "model=30ms")
    found = command(*plan, *times, "--calls", "web:model=2", "--json", folder=servd.folder)
    assert found.returncode == 0, found.stderr
    model, web = json.loads(found.stdout)["services"]
    assert model["now"]["capacity"] == pytest.approx(2 / 0.03, rel=1e-3)
    assert model["needed"]["workers"] == 3
    assert web["needed"]["cpus"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--capacity", "fast"), "'fast' is not a number of requests per second"),
        (("--capacity", "wbe=5"), 'unknown service "wbe". Services: model, redis, web'),
        (("--capacity", "5", "--service-time", "web=1x"), "is not a duration"),
        (("--capacity", "5", "--service-time", "web"), "write NAME=12ms or NAME=12ms,cpu=3ms"),
        (("--capacity", "5", "--service-time", "web=1ms,cpu=2ms"), "is a part of the whole"),
        (("--capacity", "5", "--calls", "web=2"), "write NAME:DEPENDENCY=2"),
        (("--capacity", "5", "--roll"), "--capacity goes with --json only"),
        (("--service-time", "web=1ms"), "need --capacity"),
    ],
)
def test_what_is_wrong_is_said(servd: Servd, options: tuple[str, ...], error: str) -> None:
    servd.write(servd_toml=CONFIG, main_py=MAIN, model_py=MODEL)
    found = command("plan", *options, folder=servd.folder)
    assert found.returncode == 2
    assert error in found.stderr


def test_which_public_service_is_meant_has_to_be_clear(servd: Servd) -> None:
    servd.write(servd_toml=CONFIG + '[services.b]\napp = "b:app"\nlisten = ":0"\n')
    found = command("plan", "--capacity", "5", folder=servd.folder)
    assert found.returncode == 2
    assert "needs one public service, and there are:" in found.stderr
