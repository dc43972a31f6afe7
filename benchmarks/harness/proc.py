"""What the kernel says about processes: CPU time, memory, children."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def ticks(pid: int) -> int:
    """CPU time of a process so far, in `TICKS` of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of all these processes so far."""
    return sum(ticks(pid) for pid in pids) / TICKS


def cpu_of_each(pids: Iterable[int]) -> dict[int, float]:
    """CPU time of those processes that there are."""
    found: dict[int, float] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            found[pid] = ticks(pid) / TICKS
    return found


def pss_mib(pids: Iterable[int]) -> float:
    """What processes have in memory (MiB): their own, and their share of what several have."""
    return sum(pss_kib(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids) / 1024


def pss_kib(rollup: str) -> int:
    """The line `Pss` of a smaps_rollup."""
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def children(pid: int) -> list[int]:
    """The children of a process, of all its threads."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, (task / "children").read_text().split())
    return found


def tree(pid: int) -> list[int]:
    """A process and all its descendants; empty where it has ended."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        with contextlib.suppress(OSError):
            waiting += children(one)
            found.append(one)
    return found


def is_tracker(pid: int) -> bool:
    """multiprocessing's resource tracker, which serves nobody."""
    return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
