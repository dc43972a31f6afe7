"""The exported pods run: the real daemon, in networks of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

from support.exports import ROOT, SAMPLES, export_sample
from support.harness import DEADLINE, Servd, free_port
from support.networks import isolated, why_not

ASK = "/search?q=why+does+bread+rise&limit=2"


def test_three_pods_answer_as_one_servd_does(servd: Servd, tmp_path: Path) -> None:
    """The pod that depends on the others starts first: Kubernetes knows no order."""
    if reason := why_not():
        pytest.skip(reason)
    folder = servd.folder / "gateway"
    shutil.copytree(SAMPLES / "gateway", folder)
    port = free_port()
    daemon = servd.run("--config", "servd.toml", environ={"PORT": str(port)}, folder=folder)
    daemon.ready()
    expected = httpx.get(f"http://127.0.0.1:{port}{ASK}", timeout=DEADLINE).json()
    assert daemon.stop() == 0

    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(export_sample("gateway", tmp_path).text)
    with tempfile.TemporaryDirectory(prefix="pods-") as pods:
        os.chmod(pods, 0o755)
        shutil.copytree(SAMPLES / "gateway", f"{pods}/code")
        argv = [sys.executable, "-m", "support.pods", str(manifest), f"{pods}/code"]
        done = subprocess.run(
            isolated(*argv, f"{pods}/pods", "gateway", ASK),
            capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    found = json.loads(done.stdout)
    status, text = found["alone"]
    assert status == 502, text
    assert "is down (http://tokenizer:8000)" in text
    status, text = found["together"]
    assert status == 200, found["logs"]
    answer = json.loads(text)
    assert [each["service"] for each in answer.pop("answered_by")] == [
        "gateway", "tokenizer", "ranker",
    ]  # fmt: skip
    del expected["answered_by"]
    assert answer == expected
    assert found["statuses"] == {"gateway": 0, "tokenizer": 0, "ranker": 0}, found["logs"]
