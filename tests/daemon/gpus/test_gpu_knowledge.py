"""What plans know of the GPUs while their driver answers, and while it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from servd.daemon.gpus import knowledge
from servd.daemon.gpus.knowledge import GpuKnowledge
from servd.daemon.gpus.monitor import GpuMonitor
from servd.wire.gpus import GpuSnapshot

from support.gpus import FakeGpus


def test_services_keep_their_gpus_while_the_driver_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowledge, "_AGAIN_SECONDS", 0.2)
    gpus = FakeGpus(tmp_path / "gpus.json", 2)
    monitor = GpuMonitor(gpus.environ)
    known = GpuKnowledge(gpus.environ, monitor)
    told: list[GpuSnapshot | None] = []
    known.tell = told.append
    first = known.ask()
    assert first is not None
    assert [gpu.id for gpu in first.gpus] == ["GPU-fake-0", "GPU-fake-1"]
    known.before_applying()
    gpus.hang()
    assert known.ask() == first
    known.before_applying()
    assert told == [first, None], "what is not known now is not measured"


def test_what_the_monitor_has_is_not_asked_again() -> None:
    environ = {"SERVD_GPU_BACKEND": "fake:/nonexistent"}
    monitor = GpuMonitor(environ)
    monitor.snapshot = GpuSnapshot(driver="x")
    assert GpuKnowledge(environ, monitor).ask() is monitor.snapshot
