"""Limits, CPU affinity and privileges that a worker sets for itself: the daemon would need its user
or CAP_SYS_RESOURCE and CAP_SYS_NICE (prlimit(2), sched_setaffinity(2)), which root in a container
often lacks.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterable, Sequence

_PR_SET_NO_NEW_PRIVS = 38


class ConfineError(Exception):
    """A limit or CPU is not available; the message says which, and what is."""


def confine(limits: Iterable[Sequence[object]], cpus: Sequence[int], *, no_new_privs: bool) -> None:
    """Sets soft and hard `limits` (name and value, -1 is unlimited) and restricts the process to
    `cpus`. With `no_new_privs`, setuid bits and file capabilities give programs of this thread and
    its descendants no rights (prctl(2), PR_SET_NO_NEW_PRIVS; Linux). Raises `ConfineError`.
    """
    if no_new_privs and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for name, value in limits:
        kind = getattr(resource, f"RLIMIT_{str(name).upper()}", None)
        if kind is None:
            raise ConfineError(f"rlimits: this system has no limit {name}")
        highest = resource.getrlimit(kind)[1]
        try:
            resource.setrlimit(kind, (int(str(value)), int(str(value))))
        except (ValueError, OSError):
            raise ConfineError(f"rlimits.{name} can be at most {highest} here") from None
    if cpus:
        try:
            os.sched_setaffinity(0, cpus)
        except (OSError, AttributeError):
            raise ConfineError(f"cpu_affinity: not all of the CPUs {list(cpus)} exist") from None
