"""Resource limits and CPUs of this process, set by itself.

The daemon could set them from outside only as the same user or with CAP_SYS_RESOURCE and
CAP_SYS_NICE (prlimit(2), sched_setaffinity(2)), which root in a container often has not.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Sequence


class ConfineError(Exception):
    """A limit or CPU cannot be had; the message says which, and what can."""


def confine(limits: Iterable[Sequence[object]], cpus: Sequence[int]) -> None:
    """Sets soft and hard `limits` (name and value, -1 is unlimited), and runs on `cpus` only.

    Raises `ConfineError`.
    """
    for name, value in limits:
        kind = getattr(resource, f"RLIMIT_{str(name).upper()}", None)
        if kind is None:
            raise ConfineError(f"rlimits: this system has no limit {name}")
        highest = resource.getrlimit(kind)[1]
        try:
            resource.setrlimit(kind, (int(str(value)), int(str(value))))
        except (ValueError, OSError):
            raise ConfineError(f"rlimits.{name} can be {highest} at most here") from None
    if cpus:
        try:
            os.sched_setaffinity(0, cpus)
        except (OSError, AttributeError):
            raise ConfineError(f"cpu_affinity: the CPUs {list(cpus)} are not all there") from None
