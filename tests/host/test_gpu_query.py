"""A question for the GPUs has an answer in time, whatever the driver does."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from servd.host.gpu_query import ask_gpus, query_gpus
from servd.host.gpus import usable_gpus
from servd.wire.names import GPU_BACKEND

from support.gpus import MEMORY_BYTES, FakeGpus, fake_gpu
from support.harness import command


def test_the_gpus_are_told(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path / "gpus.json", 2)
    found = query_gpus(gpus.environ)
    assert found is not None
    assert [(gpu.number, gpu.total) for gpu in found.gpus] == [
        ("0", MEMORY_BYTES),
        ("1", MEMORY_BYTES),
    ]
    assert usable_gpus("auto", {}, found).ids == ("GPU-fake-0", "GPU-fake-1")


def test_a_driver_that_hangs_is_given_up(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path / "gpus.json")
    gpus.hang()
    began = time.monotonic()
    answer = ask_gpus(gpus.environ, 0.5)
    assert answer.snapshot is None
    assert answer.error == "the GPU driver does not answer within 0.5 s"
    assert time.monotonic() - began < 10


def test_no_driver_is_told_at_once(tmp_path: Path) -> None:
    answer = ask_gpus({"SERVD_GPU_BACKEND": f"fake:{tmp_path / 'none.json'}"})
    assert answer.snapshot is None
    assert "none.json" in answer.error
    assert usable_gpus("auto", {}, answer.snapshot).ids == ()


def test_the_doctor_names_the_gpus_and_says_whether_workers_are_told_apart(tmp_path: Path) -> None:
    config = '[services.web]\ncommand = ["true"]\ngpus = 1\n'
    (tmp_path / "servd.toml").write_text(config)
    gpus = FakeGpus(tmp_path / "gpus.json", [fake_gpu(0, name="Some H100")])
    done = command("doctor", folder=tmp_path, environ=gpus.environ)
    assert "ok: GPUs: 1 (Some H100 0, 80.0 GiB)" in done.stdout
    assert "not per worker" not in done.stdout
    gpus.write(names_processes=False)
    done = command("doctor", folder=tmp_path, environ=gpus.environ)
    assert "warning: memory of GPUs is measured per GPU, not per worker" in done.stdout


def test_a_file_of_gpus_may_be_named_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeGpus(tmp_path / "gpus.json", 2)
    monkeypatch.chdir(tmp_path)
    found = query_gpus({GPU_BACKEND: "fake:gpus.json"})
    assert found is not None
    assert len(found.gpus) == 2
