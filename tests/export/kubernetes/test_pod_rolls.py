"""A roll of an exported Deployment loses nothing, and would without the exported preStop sleep."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import httpx

from support.harness import DEADLINE, wait_until

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "benchmarks"))

from harness.pod_rolls import PodTemplate, RolledDeployment, RolledPod  # noqa: E402

sys.path.pop()  # files there are named like packages, which others import

LAG_SECONDS = 1.0

HELD = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    open("begun", "w").close()
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
    await send(head)
    await send({"type": "http.response.body"})
"""
"""Answers once the file `go` is there."""


def rolled(rolls: int, pre_stop: float | None = None) -> RolledDeployment:
    template = PodTemplate.exported(ROOT / "sample-configs" / "minimal")
    sleep = template.pre_stop if pre_stop is None else pre_stop
    deployment = RolledDeployment(template, LAG_SECONDS, sleep)
    return asyncio.run(deployment.run(lambda each: each.rolls >= rolls))


def test_two_rolls_lose_nothing() -> None:
    deployment = rolled(2)
    assert deployment.pre_stop > LAG_SECONDS
    assert (deployment.lost, deployment.errors, deployment.killed) == (0, [], 0)
    assert deployment.answers["200"] > 20


def test_a_roll_without_the_sleep_loses_requests() -> None:
    """So the test above would notice."""
    deployment = rolled(1, pre_stop=0.0)
    assert deployment.lost > 0
    assert deployment.killed == 0


def test_a_request_that_is_under_way_is_answered_before_the_pod_is_killed(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(HELD)
    (tmp_path / "servd.toml").write_text('[services.web]\napp = "main:app"\nlisten = ":8000"\n')

    async def held() -> tuple[int, bool]:
        pod = await RolledPod(PodTemplate.exported(tmp_path)).start()
        async with httpx.AsyncClient(timeout=DEADLINE) as client:
            asked = asyncio.create_task(client.get(f"http://127.0.0.1:{pod.port}/"))
            await asyncio.to_thread(wait_until, (tmp_path / "begun").exists, "it has begun")
            stopped = asyncio.create_task(pod.stop(0.0))
            await asyncio.to_thread(wait_until, lambda: not is_ready(pod), "it stops")
            (tmp_path / "go").touch()
            return (await asked).status_code, await stopped

    assert asyncio.run(held()) == (200, True)


def is_ready(pod: RolledPod) -> bool:
    with contextlib.suppress(httpx.TransportError):
        url = f"http://127.0.0.1:{pod.metrics}{pod.template.readiness}"
        return httpx.get(url, timeout=DEADLINE).is_success
    return False
