"""The choices of an export to Ray Serve."""

from __future__ import annotations

from typing import Any

from servd.core.quick_dataclass import dataclass

RayDocument = dict[str, Any]

MOST_ONGOING = 1000
"""Requests that a replica without `limits.concurrency` may have at a time. Ray's default of 5 would
let others wait without bound.
"""

LATEST_CHECK_SECONDS = 30.0
"""Least time for a health check. With less, a busy machine is late in all checks at once, and Ray
stops every replica; the probe itself has `health.timeout`.
"""


@dataclass(frozen=True, slots=True)
class RayOptions:
    """What the command line chooses. `working_dir` is the URI of the code, `digest` that of its
    content, `cpus` what Ray reserves for each replica.
    """

    working_dir: str
    digest: str
    cpus: float = 1.0


def number(value: float) -> float:
    """Returns a number without a needless fraction."""
    return int(value) if float(value).is_integer() else value
