"""Says how far the start of a worker has come, and asks for the time that it takes."""

from __future__ import annotations

import os
import re

from servd.wire.names import WORKER
from servd.wire.notify import notify

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) *(ms|s|m|h|)")


def loading(status: str, extend: str | float | None = None) -> None:
    """Shows `status` ("shard 7 of 12") in `servd status` while the worker starts, and as a part of
    the reason if its start takes too long. `extend` ("2m", or seconds) asks for at least so much
    time from now on: in all, a start may take ten times `timeouts.startup`.

    Does nothing outside servd. Raises ValueError for what is no duration.
    """
    seconds = None if extend is None else _seconds(extend)
    if WORKER not in os.environ:
        return
    lines = [f"STATUS={' '.join(status.split())}"]
    if seconds is not None:
        lines.append(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")
    notify(*lines)


def _seconds(extend: str | float) -> float:
    found = _DURATION.fullmatch(str(extend).strip())
    if found is None:
        raise ValueError(f'{extend!r} is not a duration: write "30s", "2m" or a number of seconds')
    return float(found[1]) * _UNITS[found[2]]
