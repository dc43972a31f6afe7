"""Whether a process is about to end, as its parent sees it."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest

from servd.core.processes import is_ending


def test_a_process_that_ends_is_told_from_one_that_runs() -> None:
    process = subprocess.Popen(["sleep", "600"])
    assert not is_ending(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_ending(process.pid)
    process.wait()
    assert not is_ending(process.pid), "nobody knows"


def test_a_process_whose_connections_have_ended_is_ending() -> None:
    """The kernel closes descriptors before a parent can learn of the exit."""
    for _ in range(50):
        reading, writing = os.pipe()
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=writing)
        os.close(writing)
        process.kill()
        assert os.read(reading, 1) == b""
        assert is_ending(process.pid)
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
        os.close(reading)


def test_whether_a_process_ends_cannot_be_known_without_descriptors() -> None:
    """An answer would be a guess: a worker that has ended would be blamed for what it lacks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            is_ending(os.getpid())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
