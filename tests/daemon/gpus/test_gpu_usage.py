"""Whose processes hold the memory of GPUs."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from servd.core.processes import owner_of
from servd.daemon.gpus.changes import GpuChanges
from servd.daemon.gpus.listing import gpus_status
from servd.daemon.gpus.usage import GpuUsage, GpuUse, GpuWorker
from servd.host.gpu_query import GpuAnswer
from servd.wire.gpus import Gpu, GpuFault, GpuHolder, GpuSnapshot

from support.harness import wait_until
from support.plans import plan_of

ORPHAN = """
import os, subprocess, sys
code = "import subprocess, time; subprocess.Popen(['sleep', '1000'])"
subprocess.Popen(["sleep", "1000"])
subprocess.run([sys.executable, "-c", code])
print("ready", flush=True)
sys.stdin.read()
"""
"""A worker with a child, and with a grandchild whose parent has ended."""

LLM = GpuWorker("llm", 0)


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHAN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    os.killpg(process.pid, 9)
    process.communicate()


def in_session(leader: int) -> list[int]:
    """The processes of a session but its leader."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != leader:
            try:
                if os.getsid(int(name)) == leader:
                    found.append(int(name))
            except OSError:
                continue
    return found


def test_children_and_orphans_belong_to_their_worker(worker: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: len(in_session(worker.pid)) == 2, "both children run")
    assert owner_of(worker.pid, {worker.pid}) == worker.pid
    assert [owner_of(pid, {worker.pid}) for pid in in_session(worker.pid)] == [worker.pid] * 2
    assert owner_of(os.getpid(), {worker.pid}) is None
    assert owner_of(worker.pid, {os.getpid()}) == os.getpid()
    assert owner_of(2**31 - 1, {worker.pid}) is None


def held(*holders: GpuHolder, names_processes: bool = True) -> GpuUsage:
    gpu = Gpu("GPU-a", "0", "H100", 100, 0, holders=holders)
    snapshot = GpuSnapshot((gpu, Gpu("GPU-b", "1", "H100", 100, 100)), "1", names_processes)
    return GpuUsage(snapshot, {os.getpid(): LLM})


ME = os.getpid()
PLAN = plan_of({"llm": {"command": ("x",)}}).service("llm")
DECLARED = plan_of({"llm": {"command": ("x",), "gpus": {"memory": 70}}}).service("llm")


def test_the_memory_of_a_worker_is_summed(worker: subprocess.Popen[bytes]) -> None:
    usage = held(GpuHolder(ME, 10), GpuHolder(worker.pid, 5), GpuHolder(1, 40))
    assert usage.of(ME, ("0", "1"), PLAN) == [
        GpuUse("GPU-a", "0", "H100", 15),
        GpuUse("GPU-b", "1", "H100", 0),
    ]
    assert usage.by_worker() == {(LLM, "GPU-a"): 15}


def test_a_gpu_that_a_worker_uses_without_having_it_is_shown() -> None:
    usage = held(GpuHolder(ME, 10))
    assert usage.of(ME, ("GPU-b",), PLAN) == [
        GpuUse("GPU-b", "1", "H100", 0),
        GpuUse("GPU-a", "0", "H100", 10),
    ]
    assert held().of(ME, (), PLAN) == []


def test_what_is_not_told_is_unknown() -> None:
    assert held(GpuHolder(ME)).of(ME, ("0",), PLAN) == [GpuUse("GPU-a", "0", "H100", None)]
    elsewhere = held(GpuHolder(ME, 10), names_processes=False)
    assert elsewhere.of(ME, ("0",), PLAN) == [GpuUse("GPU-a", "0", "H100", None)]
    assert elsewhere.by_worker() == {}
    nothing = GpuUsage(None, {ME: LLM})
    assert nothing.of(ME, ("3", "GPU-x"), PLAN) == [
        GpuUse("", "3", "", None),
        GpuUse("GPU-x", "", "", None),
    ]
    assert held().of(ME, ("7",), PLAN) == [GpuUse("", "7", "", None)]


def test_the_list_names_workers_and_strangers() -> None:
    usage = held(GpuHolder(ME, 10, "python"), GpuHolder(1, None, "init"))
    listed = gpus_status(GpuAnswer(usage.snapshot), usage.owner)
    first, second = listed.gpus[0].holders
    assert (first.service, first.worker, first.memory_bytes) == ("llm", 0, 10)
    assert (second.service, second.worker, second.memory_bytes) == (None, None, None)
    assert gpus_status(GpuAnswer(error="no driver")).error == "no driver"


def test_what_two_looks_tell_of_faults() -> None:
    before = GpuSnapshot((Gpu("a", errors=0), Gpu("b", errors=2), Gpu("c"), Gpu("d", errors=1)))
    after = GpuSnapshot((Gpu("a", errors=1), Gpu("b", errors=0), Gpu("c", errors=5), Gpu("e")))
    changes = GpuChanges()
    assert changes.settle(before) == (before, [])
    assert changes.settle(dataclasses.replace(after, lost=("d",)))[1] == [
        GpuFault("d", 0, "the driver does not list it any more"),
        GpuFault("a", 0, "uncorrectable memory errors rose from 0 to 1"),
    ]
    assert changes.settle(after) == (after, [])


def test_a_gpu_that_lacks_once_is_kept_and_one_that_lacks_thrice_is_gone() -> None:
    a, b, c = Gpu("a"), Gpu("b"), Gpu("c")
    changes, whole, part = GpuChanges(), GpuSnapshot((a, b, c)), GpuSnapshot((a, c))
    changes.settle(whole)
    for _ in range(2):
        assert changes.settle(part) == (whole, [])
        assert changes.settle(part) == (whole, [])
        assert changes.settle(whole) == (whole, [])
    changes.settle(part)
    changes.settle(part)
    gone = [GpuFault("b", 0, "the driver does not list it any more")]
    assert changes.settle(part) == (part, gone)
    assert changes.settle(part) == (part, [])


def test_errors_that_rise_while_they_are_not_told_are_faults() -> None:
    changes = GpuChanges()
    for errors in (3, None):
        assert changes.settle(GpuSnapshot((Gpu("a", errors=errors),)))[1] == []
    found = changes.settle(GpuSnapshot((Gpu("a", errors=5),)))[1]
    assert found == [GpuFault("a", 0, "uncorrectable memory errors rose from 3 to 5")]


def test_what_is_declared_is_shown_of_the_gpus_that_a_worker_is_given() -> None:
    usage = held(GpuHolder(ME, 10))
    assert usage.of(ME, ("GPU-b",), DECLARED) == [
        GpuUse("GPU-b", "1", "H100", 0, 70),
        GpuUse("GPU-a", "0", "H100", 10, None),
    ]


def test_a_driver_that_goes_gpu_by_gpu_makes_none_fail_first() -> None:
    a, b = Gpu("GPU-a", "0"), Gpu("GPU-b", "1")
    changes, faults = GpuChanges(), []
    for gpus in ((a, b), (a,), (), (), ()):
        settled, found = changes.settle(GpuSnapshot(gpus))
        faults += [(fault.gpu, len(settled.gpus)) for fault in found]
    assert faults == [("GPU-a", 0), ("GPU-b", 0)], "as long as one is kept, none is told"
