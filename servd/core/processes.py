"""Processes as proc(5) shows them. Systems other than Linux: nothing is found."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Collection, Iterator
from typing import NamedTuple

from servd.core.exhaustion import is_exhaustion

_PR_SET_CHILD_SUBREAPER = 36
ANY_CHILD = -1
_PF_EXITING = 4
"""A flag of a process that ends (linux/sched.h)."""


class ProcessStat(NamedTuple):
    """A process: state ("Z": it has exited), parent, group, session, start (clock ticks since
    boot), which distinguishes it from a later process with the same pid, and flags of the kernel.
    """

    state: str
    parent: int
    group: int
    session: int
    started: int
    flags: int

    @property
    def is_dead(self) -> bool:
        """Whether it has exited and waits to be reaped."""
        return self.state in ("Z", "X")


def stat_of(pid: int) -> ProcessStat | None:
    """Returns a process, or None."""
    try:
        return _read_stat(pid)
    except (OSError, ValueError, IndexError):
        return None


def _read_stat(pid: int) -> ProcessStat:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    parent, group, session, _, _, flags = map(int, fields[1:7])
    return ProcessStat(fields[0], parent, group, session, int(fields[19]), flags)


def started_at(pid: int) -> int | None:
    """Returns the start time of a process; None if it does not exist or has exited."""
    found = stat_of(pid)
    return None if found is None or found.is_dead else found.started


def is_dead(pid: int) -> bool:
    """Whether a process has exited and waits to be reaped."""
    found = stat_of(pid)
    return found is not None and found.is_dead


def is_ending(pid: int) -> bool:
    """Whether a process has exited, or has begun to: its connections end before that shows. Raises
    OSError when the resources to look are exhausted.
    """
    try:
        found = _read_stat(pid)
    except OSError as error:
        if is_exhaustion(error):
            raise
        return False
    except (ValueError, IndexError):
        return False
    return found.is_dead or bool(found.flags & _PF_EXITING)


def ended_child() -> int | None:
    """Returns the pid of a child of this process that has ended and is not reaped; `ANY_CHILD` if
    the kernel knows no children, so that others have reaped them.
    """
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return ANY_CHILD
    return found.si_pid if found is not None else None


def children_of(pid: int) -> list[int]:
    """Returns the children of a process, with those that are not reaped yet."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file,
            ):
                found += map(int, file.read().split())
    return found


def all_children_of(pid: int) -> set[int]:
    """Returns the children of a process, also while some of them end: one look may lack others then
    (proc(5), /proc/pid/task/tid/children).
    """
    return {*children_of(pid), *children_of(pid)}


def descendants_of(pids: Collection[int]) -> Iterator[int]:
    """Yields processes and everything that they started."""
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children_of(pid)


def all_pids() -> list[int]:
    """Returns every visible process."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def environment_of(pid: int) -> dict[str, str]:
    """Returns the initial environment of a process; empty if it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", encoding="utf-8", errors="replace") as file:
            pairs = (item.partition("=") for item in file.read().split("\0"))
            return {name: value for name, sign, value in pairs if sign}
    except OSError:
        return {}


def was_started_by(pid: int, leader: int, notify_path: str, *, by_number: bool = True) -> bool:
    """Whether a running process was started by a worker: it is in the group or session of `leader`
    (unless `by_number` is false: the number may be reused), or has the NOTIFY_SOCKET of the worker,
    which is unique.
    """
    found = stat_of(pid)
    if found is None or found.is_dead:
        return False
    if by_number and leader in (found.group, found.session):
        return True
    return environment_of(pid).get("NOTIFY_SOCKET") == notify_path


def owner_of(pid: int, leaders: Collection[int]) -> int | None:
    """Returns which of `leaders` a process is or comes from, also where its parent has ended: then
    its group or session tells.
    """
    seen: set[int] = set()
    at = pid
    while at > 1 and at not in seen:
        if at in leaders:
            return at
        seen.add(at)
        found = stat_of(at)
        if found is None:
            return None
        for leader in (found.group, found.session):
            if leader in leaders:
                return leader
        at = found.parent
    return None


def name_of(pid: int) -> str:
    """Returns the program name of a process, or ""."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def adopt_orphans(*, adopt: bool = True) -> None:
    """Makes this process the parent of what its descendants leave behind (prctl(2),
    PR_SET_CHILD_SUBREAPER; Linux), so that it can stop these processes safely by pid.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


def send_signal(descriptor: int, number: int) -> None:
    """Sends a signal to the process of a pidfd, if it still runs and this is permitted."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(descriptor, number)
