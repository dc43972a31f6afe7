"""Helpers that a driver that hangs keeps from ending, and what a helper is given."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import servd
from servd.host import gpu_query
from servd.host.gpu_helper import end_helper, is_one_ending, start_helper
from servd.host.gpu_query import ask_gpus

from support.gpus import FakeGpus
from support.harness import wait_until

ROOT = Path(servd.__file__).parents[1]


@pytest.fixture
def unkillable() -> Iterator[subprocess.Popen[bytes]]:
    """A process that survives the kill of `end_helper`, as in an uninterruptible wait."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


def test_no_helper_is_started_beside_one_that_cannot_be_killed(
    tmp_path: Path, unkillable: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_query, "_END_SECONDS", 0.05)
    gpus = FakeGpus(tmp_path / "gpus.json")
    stuck: Any = SimpleNamespace(pid=unkillable.pid, returncode=None, kill=lambda: None)
    end_helper(cast("subprocess.Popen[bytes]", stuck))
    assert is_one_ending()
    with pytest.raises(OSError, match="an earlier one hangs in the driver"):
        start_helper(gpus.environ, 1.0)
    answer = ask_gpus(gpus.environ)
    assert answer.error == "cannot start the GPU helper: an earlier one hangs in the driver"
    assert answer.is_unknown
    unkillable.kill()
    unkillable.wait()
    assert not is_one_ending()
    assert ask_gpus(gpus.environ).snapshot is not None


def test_relative_folders_are_those_of_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = FakeGpus(tmp_path / "gpus.json")
    monkeypatch.chdir(tmp_path)
    wait_until(lambda: not is_one_ending(), "helpers of other tests have ended")
    helper = start_helper({**os.environ, **gpus.environ, "PYTHONPATH": f"lib:{ROOT}:"}, 1.0)
    environ = Path(f"/proc/{helper.process.pid}/environ")
    told = f"PYTHONPATH={tmp_path}/lib:{ROOT}".encode()
    wait_until(lambda: told in environ.read_bytes().split(b"\0"), "the helper runs by it")
    helper.channel.close()
    end_helper(helper.process)
    helper.process.wait()


def test_a_machine_without_a_driver_has_no_gpus_and_one_whose_driver_fails_is_unknown(
    tmp_path: Path,
) -> None:
    absent = ask_gpus({"SERVD_GPU_BACKEND": f"fake:{tmp_path / 'none.json'}"})
    assert absent.is_absent
    (tmp_path / "bad.json").write_text("[")
    failed = ask_gpus({"SERVD_GPU_BACKEND": f"fake:{tmp_path / 'bad.json'}"})
    assert failed.is_unknown
    assert "bad.json" in failed.error
