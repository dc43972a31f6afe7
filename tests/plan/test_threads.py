"""Libraries that compute use a worker's share of the CPUs, not all of them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from servd.plan.diff import diff
from servd.plan.host import Host
from servd.plan.model import ServicePlan
from servd.plan.threads import THREADS, thread_limit

from support.apps import OK
from support.harness import Servd, ServdProcess
from support.plans import plan_of

HOST = Host(cpus=tuple(range(8)), usable_cpus=6, environ={"PATH": "/bin", THREADS: "5"})


def service(**given: Any) -> ServicePlan:
    (found,) = plan_of({"web": {"app": "main:app", **given}}, HOST).services
    return replace(found, gpus=(("0",),)) if given.get("gpus") else found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [None]),
        ({"gpus": 1}, ["6"]),
        ({"gpus": 0.5, "workers": 4}, ["1"] * 4),
        ({"gpus": 0.25, "workers": 8}, ["1"] * 8),
        ({"gpus": 1, "env": {THREADS: "3"}}, [None]),
        ({"gpus": 1, "env_passthrough": ("OMP_*",)}, [None]),
        ({"cpu_affinity": [0, 1, 2, 3]}, ["4"]),
        ({"cpu_affinity": [0, 1, 2, 3], "workers": 3}, ["1"] * 3),
        ({"cpu_affinity": "spread", "workers": 2}, ["1", "1"]),
        ({"cpu_affinity": [0, 1], "gpus": 1}, ["2"]),
    ],
)
def test_a_worker_has_its_share(given: dict[str, Any], expected: list[str | None]) -> None:
    plan = service(**given)
    found = [thread_limit(plan, slot).get(THREADS) for slot in range(plan.workers)]
    assert found == expected


def test_workers_with_cpus_of_their_own_share_with_those_on_the_same() -> None:
    plan = service(cpu_affinity=[0, 1], workers=3)
    near = replace(plan.identity, affinity=((0, 1, 2, 3), (4, 5)))
    plan = replace(plan, identity=near)
    assert [thread_limit(plan, slot)[THREADS] for slot in range(3)] == ["2", "2", "2"]


def test_another_number_of_workers_scales_and_rolls_nothing() -> None:
    before, after = (
        plan_of({"web": {"app": "main:app", "cpu_affinity": [0, 1], "workers": workers}}, HOST)
        for workers in (1, 2)
    )
    (change,) = diff(before, after)
    assert change.kind == "scale"
    assert [key.key for key in change.keys] == ["workers"]


def threads_of(daemon: ServdProcess, name: str) -> list[str]:
    found = []
    for pid in daemon.pids(name):
        entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        found += [e.partition("=")[2] for e in entries if e.startswith(f"{THREADS}=")]
    return found


def test_each_worker_is_told(servd: Servd) -> None:
    text = """
        [daemon]
        gpus = 1
        [services.model]
        app = "main:app"
        gpus = 0.25
        [services.plain]
        app = "main:app"
        [services.program]
        command = ["sleep", "600"]
        cpu_affinity = [0]
    """
    daemon = servd(text, main_py=OK).ready()
    (cpus,) = threads_of(daemon, "model")
    assert 1 <= int(cpus) <= len(os.sched_getaffinity(0))
    assert threads_of(daemon, "program") == ["1"]
    assert threads_of(daemon, "plain") == []
    (pid,) = daemon.pids("model")
    assert daemon.act("model", "scale", workers=2)["outcome"] == "applied"
    assert daemon.pids("model")[0] == pid
    assert threads_of(daemon, "model") == [cpus, str(max(1, int(cpus) // 2))]
    assert daemon.stop() == 0
