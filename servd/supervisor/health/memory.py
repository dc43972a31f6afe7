"""Memory of a worker and of the processes that it started (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> int | None:
    """Resident memory of one process in bytes; None when it has ended. Costs microseconds."""
    found = _pages(pid)
    return found[0] * _PAGE_BYTES if found is not None else None


def proportional(pid: int) -> int:
    """Memory of one process in bytes, with its share of shared pages (PSS); 0 when it has ended.
    Costs milliseconds for a large one. Where PSS is not readable, shared pages are left out.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        found = _pages(pid)
        if found is not None:
            return (found[0] - found[1]) * _PAGE_BYTES
    return 0


def _pages(pid: int) -> tuple[int, int] | None:
    """Resident and shared pages."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            fields = file.read().split()
        return int(fields[1]), int(fields[2])
    except (OSError, IndexError, ValueError):
        return None


def tree(pid: int) -> list[int]:
    """A process and all its living descendants."""
    found = [pid]
    for parent in found:
        found += _children(parent)
    return found


def _children(pid: int) -> Iterable[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                yield from map(int, file.read().split())
        except (OSError, ValueError):
            continue


def bytes_read(pid: int) -> int | None:
    """Bytes that a process has read, from files and pipes, and from disks for mapped files; 0 when
    it has ended, None where the kernel does not tell.
    """
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            found = dict(line.split(b": ") for line in file.read().splitlines())
        return int(found[b"rchar"]) + int(found[b"read_bytes"])
    except (FileNotFoundError, ProcessLookupError):
        return 0 if os.path.exists("/proc/self/io") else None
    except (OSError, ValueError, KeyError):
        return None


def over(pid: int, limit: int) -> int:
    """Bytes that a worker and its descendants use if that is more than `limit`, else 0. Reads the
    cheap figure first: resident memory is never less than the proportional one.
    """
    pids = tree(pid)
    if sum(resident(each) or 0 for each in pids) <= limit:
        return 0
    used = sum(proportional(each) for each in pids)
    return used if used > limit else 0
