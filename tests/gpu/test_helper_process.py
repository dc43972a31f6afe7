"""The helper as a program: what it sends, when, and when it ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servd.host.gpu_helper import StartedHelper, start_helper
from servd.wire.gpu_messages import GpuLines, GpuReport, line_of, report_of
from servd.wire.gpus import GpuFault, GpuSnapshot

from support.gpus import GIB, MEMORY_BYTES, FakeGpus
from support.harness import DEADLINE, wait_until

HOUR = 3600.0
SHORT = 0.02


class Talk:
    """A helper, and the reports that it sends."""

    def __init__(self, environ: dict[str, str], interval: float) -> None:
        self.helper: StartedHelper = start_helper({**os.environ, **environ}, interval)
        self.helper.channel.settimeout(DEADLINE)
        self.listen()

    def listen(self) -> None:
        """Reads on, also after a time limit."""
        self._reports = self._read()

    def _read(self) -> Iterator[GpuReport]:
        lines = GpuLines()
        while data := self.helper.channel.recv(65536):
            for line in lines.feed(data):
                yield report_of(line)

    def next(self) -> GpuReport:
        """The next report; StopIteration when the helper has ended."""
        return next(self._reports)

    def snapshot(self) -> GpuSnapshot:
        """The next snapshot."""
        while True:
            if found := self.next().snapshot:
                return found

    def until_look(self, number: int) -> GpuSnapshot:
        """The answer to a question."""
        self.helper.channel.sendall(line_of({"look": number}))
        while True:
            report = self.next()
            if report.look == number and report.snapshot is not None:
                return report.snapshot

    def end(self) -> None:
        """Ends it."""
        self.helper.channel.close()
        self.helper.process.kill()
        self.helper.process.wait()


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus.json", 2)


@pytest.fixture
def slow(gpus: FakeGpus) -> Iterator[Talk]:
    """A helper that says something only when it is asked, after its first word."""
    talk = Talk(gpus.environ, HOUR)
    yield talk
    talk.end()


@pytest.fixture
def quick(gpus: FakeGpus) -> Iterator[Talk]:
    talk = Talk(gpus.environ, SHORT)
    yield talk
    talk.end()


def test_a_question_is_answered_at_once(gpus: FakeGpus, slow: Talk) -> None:
    first = slow.snapshot()
    assert [gpu.id for gpu in first.gpus] == ["GPU-fake-0", "GPU-fake-1"]
    assert {gpu.free for gpu in first.gpus} == {MEMORY_BYTES}
    gpus.allocate("1", os.getpid(), 3 * GIB)
    second = slow.until_look(7)
    assert [gpu.used for gpu in second.gpus] == [0, 3 * GIB]
    assert [holder.pid for holder in second.gpus[1].holders] == [os.getpid()]


def test_snapshots_come_unasked(gpus: FakeGpus, quick: Talk) -> None:
    quick.snapshot()
    gpus.hold("GPU-fake-0", os.getpid(), GIB, "stranger")
    while not (used := quick.snapshot().gpus[0]).holders:
        pass
    assert (used.used, used.holders[0].name) == (GIB, "stranger")


def test_memory_of_a_dead_process_is_free(gpus: FakeGpus, slow: Talk) -> None:
    child = subprocess.Popen(["sleep", "1000"])
    gpus.allocate("0", child.pid, GIB)
    assert slow.until_look(1).gpus[0].used == GIB
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert slow.until_look(2).gpus[0].used == 0
    child.wait()


def test_a_fault_is_told_once_by_all_helpers_together(gpus: FakeGpus, quick: Talk) -> None:
    gpus.fault("GPU-fake-1", 79, "fallen off the bus")
    while (report := quick.next()).fault is None:
        pass
    assert report.fault == GpuFault("GPU-fake-1", 79, "fallen off the bus")
    later = Talk(gpus.environ, SHORT)
    reports = [each.next() for each in (quick, later) for _ in range(10)]
    later.end()
    assert all(each.fault is None for each in reports)


def test_a_hang_lasts_until_it_is_over(gpus: FakeGpus, slow: Talk) -> None:
    slow.snapshot()
    gpus.hang()
    slow.helper.channel.sendall(line_of({"look": 1}))
    slow.helper.channel.settimeout(0.3)
    with pytest.raises(TimeoutError):
        slow.next()
    gpus.hang(hang=False)
    slow.helper.channel.settimeout(DEADLINE)
    slow.listen()
    report = slow.next()
    assert report.look == 1
    assert report.snapshot is not None


def test_garbage_in_a_question_is_skipped(slow: Talk) -> None:
    slow.helper.channel.sendall(b'garbage\n[]\n{"look": "x"}\n\xff\n')
    assert len(slow.until_look(3).gpus) == 2


def test_it_ends_with_the_socket(slow: Talk) -> None:
    slow.snapshot()
    slow.helper.channel.shutdown(socket.SHUT_RDWR)
    assert slow.helper.process.wait(DEADLINE) == 0


def test_it_dies_with_the_process_that_started_it_also_when_the_driver_hangs(
    gpus: FakeGpus,
) -> None:
    gpus.hang()
    code = (
        "import os, signal\n"
        "from servd.host.gpu_helper import start_helper\n"
        "helper = start_helper(os.environ, 1.0)\n"
        "print(helper.process.pid, flush=True)\n"
        "signal.pause()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, **gpus.environ}
    )
    assert parent.stdout is not None
    helper = int(parent.stdout.readline())
    wait_until(lambda: _command(helper).startswith(sys.executable), "the helper runs")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not _command(helper), "the helper ends")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_helper_without_a_driver_says_why(tmp_path: Path) -> None:
    talk = Talk({"SERVD_GPU_BACKEND": f"fake:{tmp_path / 'none.json'}"}, SHORT)
    assert "none.json: FileNotFoundError" in talk.next().failure
    with pytest.raises(StopIteration):
        talk.next()
    assert talk.helper.process.wait(DEADLINE) == 1
    talk.end()


def test_an_unknown_backend_is_told() -> None:
    talk = Talk({"SERVD_GPU_BACKEND": "rocm"}, SHORT)
    assert talk.next().failure == "unknown backend rocm: write nvml or fake:FILE"
    talk.end()


def test_it_gets_no_more_of_the_environment_than_it_needs(gpus: FakeGpus) -> None:
    talk = Talk({**gpus.environ, "SECRET": "1"}, HOUR)
    talk.snapshot()
    environ = Path(f"/proc/{talk.helper.process.pid}/environ").read_bytes()
    assert b"SERVD_GPU_BACKEND=fake:" in environ
    assert b"SECRET" not in environ
    talk.end()


def test_it_starts_by_the_standard_library_alone() -> None:
    code = (
        "import sys, json, servd.gpu.__main__, servd.gpu.fake, servd.gpu.nvml\n"
        "print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    bare = "import sys, json; print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True)
    assert loaded - set(json.loads(done.stdout)) - set(sys.stdlib_module_names) == {"servd"}


def test_signals_of_a_terminal_do_not_reach_it(slow: Talk) -> None:
    slow.snapshot()
    assert os.getsid(slow.helper.process.pid) == slow.helper.process.pid != os.getsid(0)
