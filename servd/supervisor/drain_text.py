"""What generations wait for that drain, as text for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

_MINUTES_FROM_SECONDS = 120


def waiting_for(counts: Iterable[dict[str, int]]) -> str:
    """Returns `3 requests, 1 websocket`; a command's reason is unknown."""
    total = Counter[str]()
    for each in counts:
        total.update(each)
    named = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in total.items()]
    return ", ".join(named) or "its exit"


def time_left(seconds: float) -> str:
    """Returns `45s left`, `11m left`."""
    if seconds < _MINUTES_FROM_SECONDS:
        return f"{max(0, math.ceil(seconds))}s left"
    return f"{math.ceil(seconds / 60)}m left"
