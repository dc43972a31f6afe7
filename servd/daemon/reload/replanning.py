"""Reloads for workers that can import what could not be imported for the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from servd.core.quick_dataclass import dataclass
from servd.daemon.reload.request import ReloadRequest

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 60.0
"""Pause after a reload for one service, in which there is no other; each is twice as long as the
one before, until nothing has been asked for as long as the longest.
"""


@dataclass(frozen=True, slots=True)
class _Pause:
    seconds: float
    end: float


class Replanning:
    """Asks for the reloads, with pauses: for some code the process that describes it and a worker
    differ for good.
    """

    def __init__(self, ask: Callable[[ReloadRequest], object]) -> None:
        self._ask = ask
        self._pauses: dict[str, _Pause] = {}

    def ask(self, service: str) -> None:
        """A worker of `service` could import its code."""
        now = asyncio.get_running_loop().time()
        pause = self._pauses.get(service)
        if pause is not None and now < pause.end:
            return
        seconds = _FIRST_SECONDS
        if pause is not None and now - pause.end < _LONGEST_SECONDS:
            seconds = min(2 * pause.seconds, _LONGEST_SECONDS)
        self._pauses[service] = _Pause(seconds, now + seconds)
        why = f"the code of {service} can be imported now"
        self._ask(ReloadRequest(why, is_retry=True))
