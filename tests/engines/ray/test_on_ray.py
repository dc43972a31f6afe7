"""Services on a real cluster of Ray: two nodes of one CPU each, four replicas at most.

Takes minutes: `.ci/ray` runs it, in a job of its own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from support.exports import SAMPLES
from support.harness import Servd
from support.ray_apps import (
    COUNTED,
    FEATURES,
    FEATURES_APP,
    HELD,
    INNER_APP,
    ROLLING,
    SCALED,
    WSGI_APP,
)
from support.ray_cluster import (
    ANSWER_SECONDS,
    MINUTES,
    PYTHON,
    RayCluster,
    burning,
    eventually,
    ray_cluster,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists(PYTHON), reason="needs .ci/setup ray"),
    pytest.mark.timeout(3000),
    pytest.mark.xdist_group("ray"),
]


@pytest.fixture(scope="module")
def ray() -> Iterator[RayCluster]:
    with ray_cluster() as cluster:
        yield cluster


def sample(name: str, folder: Path) -> Path:
    copy = folder / name
    shutil.copytree(SAMPLES / name, copy, ignore=shutil.ignore_patterns("__pycache__", "*.yaml"))
    return copy


def rolling(version: str, timeout: str = "30s", extra: str = "") -> str:
    return ROLLING.replace("VALUE", version).replace("TIMEOUT", timeout) + extra


def test_the_sample_answers_as_under_servd(ray: RayCluster, tmp_path: Path, servd: Servd) -> None:
    folder = sample("gateway", tmp_path)
    shown = ray.deploy(folder)
    assert "3 to add, 0 to change, 0 to remove" in shown
    query = {"q": "why does bread rise"}
    here = ray.get("/search", params=query).json()
    processes = here.pop("answered_by")
    assert [each["service"] for each in processes] == ["gateway", "tokenizer", "ranker"]
    assert len({each["pid"] for each in processes}) == 3
    environ = {"PORT": "0", "SERVD_DEFAULTS__PYTHON": PYTHON}  # scikit-learn is optional
    daemon = servd.run("--config", "servd.toml", folder=folder, environ=environ)
    there = daemon.ready().get("gateway", "/search", params=query).json()
    daemon.stop()
    there.pop("answered_by")
    assert here == there
    assert here["documents"][0]["id"] == 0
    for name in ("tokenizer", "ranker"):
        assert ray.get(f"/{name}/healthz").status_code == 404
    assert ray.deploy(folder) == "No changes.\n"
    status = ray.command(folder, "status").stdout
    rows = [line.split()[:3] for line in status.splitlines() if " ready " in line]
    assert sorted(rows) == [
        ["gateway", "ready", "2/2"], ["ranker", "ready", "1/1"], ["tokenizer", "ready", "1/1"],
    ]  # fmt: skip


@pytest.fixture(scope="module")
def features(ray: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> RayCluster:
    folder = tmp_path_factory.mktemp("features")
    for name, text in (("features", FEATURES_APP), ("inner", INNER_APP), ("wsgi", WSGI_APP)):
        (folder / f"{name}.py").write_text(text)
    ray.deploy(folder, FEATURES)
    return ray


def test_the_lifespan_the_state_and_the_environment(features: RayCluster) -> None:
    assert features.get("/state").json() == {
        "state": "loaded", "service": "features", "node": "seen",
    }  # fmt: skip
    for name in ("inner", "limited"):
        assert features.get(f"/{name}").status_code == 404


def test_request_ids_and_traces_are_handed_on_and_told_once(features: RayCluster) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    given = {"X-Request-ID": "mine", "traceparent": trace}
    answer = features.get("/ids", headers=given)
    assert answer.json() == {"here": "mine", "there": {"id": "mine", "trace": trace}}
    assert answer.headers.get_list("x-request-id") == ["mine"]
    made = features.get("/ids")
    assert made.json()["here"] == made.json()["there"]["id"]
    assert made.headers.get_list("x-request-id") == [made.json()["here"]]


def test_deadlines_are_those_of_servd(features: RayCluster) -> None:
    late = features.get("/never")
    assert (late.status_code, late.headers["content-type"]) == (504, "application/problem+json")
    assert len(late.headers.get_list("x-request-id")) == 1
    eventually(lambda: features.get("/cancelled").json(), "the handler was cancelled")
    told = features.get("/late").json()
    assert told["error"].startswith('the dependency "inner" did not answer (ray): ')
    assert told["cancelled"]


def test_limits_refuse_with_retry_after(features: RayCluster) -> None:
    assert features.get("/limits").json() == {"status": 503, "retry_after": "1"}


def test_sync_code_and_wsgi_and_large_bodies(features: RayCluster) -> None:
    found = features.get("/sync", headers={"X-Request-ID": "mine"}).json()
    assert found == {"ids": "mine", "pieces": "01234"}
    assert features.get("/wsgi").json() == ["/a/b", "c=d"]
    body = os.urandom(20 * 2**20)
    answer = httpx.post(f"{features.url}/size", content=body, timeout=MINUTES)
    assert answer.json() == len(body)


def test_a_websocket_talks(features: RayCluster) -> None:
    async def talk() -> list[str]:
        async with websockets.connect(f"ws://127.0.0.1:{features.port}/ws") as socket:
            answers = []
            for text in ("a", "b"):
                await socket.send(text)
                answers.append(str(await asyncio.wait_for(socket.recv(), ANSWER_SECONDS)))
            return answers

    assert asyncio.run(talk()) == ["echo a", "echo b"]


def test_event_streams_are_not_held_back_through_a_dependency_either(features: RayCluster) -> None:
    """Each stream ends only once its first event was read."""
    for path in ("/events", "/events/inner"):
        with httpx.stream("GET", features.url + path, timeout=ANSWER_SECONDS) as answer:
            lines = (line for line in answer.iter_lines() if line)
            assert next(lines) == "data: one"
            if path == "/events/inner":
                assert httpx.post(f"{features.url}/release", timeout=ANSWER_SECONDS).is_success
                assert list(lines) == ["data: two"]


def write_counted(folder: Path, version: str = "1", timeout: str = "30s") -> str:
    (folder / "counted.py").write_text(COUNTED)
    return rolling(version, timeout)


def test_rollouts_under_load_lose_nothing(ray: RayCluster, tmp_path: Path) -> None:
    ray.deploy(tmp_path, write_counted(tmp_path))
    with ray.asking("/", 10) as tally:
        tally.more(20)
        for version in ("2", "3", "4"):
            ray.deploy(tmp_path, rolling(version))
            tally.more(20)
    assert tally.lost == []
    assert {*tally.bodies} == {"1", "2", "3", "4"}


def test_a_busy_machine_loses_nothing_with_a_short_health_timeout(
    ray: RayCluster, tmp_path: Path
) -> None:
    """`health.timeout` as Ray's own limit stopped every replica at once."""
    ray.deploy(tmp_path, write_counted(tmp_path, "1", "1s"))
    with burning(), burning(), ray.asking("/", 10) as tally:
        tally.more(100)
        ray.deploy(tmp_path, rolling("2", "1s"))
        tally.more(100)
    assert tally.lost == []


def test_a_killed_replica_is_replaced(ray: RayCluster, tmp_path: Path) -> None:
    ray.deploy(tmp_path, write_counted(tmp_path))
    before = {each["pid"] for each in ray.replicas("web")}
    assert len(before) == 2
    with ray.asking("/", 10) as tally:
        tally.more(20)
        os.kill(min(before), signal.SIGKILL)
        eventually(
            lambda: (
                min(before) not in (now := {r["pid"] for r in ray.replicas("web")})
                and len(now) == 2
            ),
            "two replicas again",
        )
        tally.more(20)
    assert len(tally.lost) <= 10, tally.lost  # those in flight


def test_a_broken_version_is_undone(ray: RayCluster, tmp_path: Path) -> None:
    text = write_counted(tmp_path)
    ray.deploy(tmp_path, text)
    with ray.asking("/", 10) as tally:
        tally.more(20)
        done = ray.try_to_deploy(tmp_path, rolling("2").replace("counted:app", "counted:nosuch"))
        tally.more(20)
    assert done.returncode == 1
    assert "web failed:" in done.stderr
    assert 'counted has no attribute "nosuch"' in done.stderr
    assert "The previous configuration is still running." in done.stderr
    assert (tally.lost, {*tally.bodies}) == ([], {"1"})
    assert ray.deploy(tmp_path, text) == "No changes.\n"


def test_a_broken_version_that_is_left_has_its_reason_in_status(
    ray: RayCluster, tmp_path: Path
) -> None:
    write_counted(tmp_path)
    text = rolling("2").replace("counted:app", "counted:nosuch")
    (tmp_path / "servd.toml").write_text(text.replace("{port}", str(ray.port)))
    done = ray.command(tmp_path, "deploy", "--cpus", "0.1", "--no-rollback")
    assert done.returncode == 1
    status = ray.command(tmp_path, "status").stdout
    assert 'counted has no attribute "nosuch"' in status
    assert " failed " in status


def test_replicas_follow_the_load(ray: RayCluster, tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text(HELD)
    ray.deploy(tmp_path, SCALED)
    assert len(ray.replicas("web")) == 1
    with ray.asking("/", 4) as tally:
        eventually(lambda: len(ray.replicas("web")) == 3, "three replicas")
    assert tally.lost == []
    eventually(lambda: len(ray.replicas("web")) == 1, "one replica again")


def test_the_bentoml_sample_answers(ray: RayCluster, tmp_path: Path) -> None:
    folder = sample("bentoml", tmp_path)
    text = (folder / "servd.toml").read_text().replace("workers = 3", "workers = 1")
    ray.deploy(folder, text.replace("${PORT:-3000}", "{port}"))
    given: dict[str, Any] = {"json": {"text": "the cat the dog"}, "timeout": ANSWER_SECONDS}
    counted = httpx.post(f"{ray.url}/count", **given)
    assert counted.json() == {"the": 2, "cat": 1, "dog": 1}
    streamed = httpx.post(f"{ray.url}/stream", **given)
    assert streamed.text == "the\ncat\nthe\ndog\n"
    assert ray.get("/readyz").status_code == 200
