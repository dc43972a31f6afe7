"""How much memory a worker and the processes that it started take (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> int | None:
    """Resident memory of one process in bytes; None when it is gone. Costs microseconds."""
    found = _pages(pid)
    return found[0] * _PAGE if found is not None else None


def proportional(pid: int) -> int:
    """Memory of one process in bytes, with its share of what it shares (PSS); 0 when it is gone.

    Costs milliseconds in a large one. Where it may not be read, what is shared is left out.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        found = _pages(pid)
        if found is not None:
            return (found[0] - found[1]) * _PAGE
    return 0


def _pages(pid: int) -> tuple[int, int] | None:
    """Resident pages, and those of them that are shared."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            fields = file.read().split()
        return int(fields[1]), int(fields[2])
    except (OSError, IndexError, ValueError):
        return None


def tree(pid: int) -> list[int]:
    """A process, and all that it and its children have started, as far as they live."""
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


def over(pid: int, limit: int) -> int:
    """The bytes that a worker with all its children takes, where that is more than `limit`; else 0.

    The cheap figure first: resident memory is never less than the proportional one.
    """
    pids = tree(pid)
    if sum(resident(each) or 0 for each in pids) <= limit:
        return 0
    used = sum(proportional(each) for each in pids)
    return used if used > limit else 0
