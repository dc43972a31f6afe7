"""A roll of an exported Deployment loses nothing, and would without the exported preStop sleep."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT / "benchmarks"))

from harness.pod_rolls import PodTemplate, RolledDeployment  # noqa: E402

sys.path.pop()  # files there are named like packages, which others import

LAG_SECONDS = 1.0


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
