"""Three hosts with servd behind HAProxy: the sample, in network namespaces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.networks import isolated, why_not

ROOT = Path(__file__).parents[2]


def test_a_host_is_lost_and_another_restarted_under_load(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    if shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("needs haproxy")
    sample = tmp_path / "sample"
    shutil.copytree(ROOT / "sample-configs" / "hosts", sample)
    argv = [sys.executable, "-m", "support.three_hosts", str(sample), str(tmp_path)]
    done = subprocess.run(
        isolated(*argv), capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    found = json.loads(done.stdout)
    assert found["lost"] == []
    for part in ("web", "model"):
        assert {f"{part} 10.0.0.{n}" for n in (1, 2, 3)} <= found["answered"].keys()
    assert found["stopped"] == 0
    assert found["statuses"] == {"host1": 0, "host3": 0}
    for name in ("host1", "host3"):
        assert "internal error" not in found["logs"][name]
