"""CPU use of processes (proc(5), the times of `stat`)."""

from __future__ import annotations

import os
import time

_INTERVAL_SECONDS = 1.0
"""Shortest interval of a figure: the clock of CPU times has ticks of 10 ms."""

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float | None:
    """Returns the CPU time that a process has used; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    except (OSError, IndexError, ValueError):
        return None


class CpuMeter:
    """Measures the CPU use of processes since the last call, or since they started."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, float, float]] = {}

    def percent(self, pid: int, lived: float) -> float | None:
        """Percent of one CPU over 1 s or more; None if it is gone. `lived`: age in seconds."""
        used = cpu_seconds(pid)
        if used is None:
            self._known.pop(pid, None)
            return None
        now = time.monotonic()
        before, spent, last = self._known.get(pid, (now - lived, 0.0, 0.0))
        if before < now - lived - _INTERVAL_SECONDS:  # another process had this pid
            before, spent, last = now - lived, 0.0, 0.0
        if pid in self._known and now - before < _INTERVAL_SECONDS:
            return last
        percent = round(100 * (used - spent) / max(now - before, 0.01), 1)
        self._known[pid] = (now, used, percent)
        return percent

    def forget_all_but(self, pids: set[int]) -> None:
        """Drops what is known of processes that are gone."""
        for pid in self._known.keys() - pids:
            del self._known[pid]
