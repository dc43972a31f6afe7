"""Makes faults happen to processes that run, for a while."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from collections.abc import Iterator

import psutil


@contextlib.contextmanager
def limited(pid: int, kind: int, soft: int) -> Iterator[None]:
    """Lowers a limit of a process that runs, for a while."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (soft, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, kind, before)


@contextlib.contextmanager
def without_processes(pid: int) -> Iterator[None]:
    """Lets a process that is not of root start no process and no thread. It is told by one of its
    own user, since root in a container may not.
    """
    owner = os.stat(f"/proc/{pid}").st_uid

    def limit(soft: str) -> None:
        command = ["prlimit", f"--pid={pid}", f"--nproc={soft}:"]
        subprocess.run(command, user=owner if os.geteuid() == 0 else None, check=True)

    limit("1")
    try:
        yield
    finally:
        limit(str(resource.getrlimit(resource.RLIMIT_NPROC)[1]))


@contextlib.contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    """Lets a process have no more descriptors than it has."""
    with limited(pid, resource.RLIMIT_NOFILE, 3):
        yield


@contextlib.contextmanager
def idling(pid: int, acts: float = 0.4) -> Iterator[None]:
    """Fails when a process takes more CPU time than `acts` seconds, for what it is asked to do
    meanwhile, and 5 % of a CPU, for what it does anyway (2 % is what it was seen to take).
    """
    process = psutil.Process(pid)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    yield
    used = sum(process.cpu_times()[:2]) - before
    allowed = acts + 0.05 * (time.monotonic() - began)
    assert used < allowed, f"{used:.2f} s of CPU time, of {allowed:.2f} s that it may take"
