"""The phase of the daemon, from its start to its exit."""

from __future__ import annotations

import asyncio
from typing import Literal


class Lifecycle:
    """Shared state: `stopping` is set to end the daemon, `has_started` when the start is over."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.has_started = False
        self.is_told_to_stop = False

    @property
    def phase(self) -> Literal["starting", "running", "stopping"]:
        """The phase of the daemon, apart from reloads."""
        if self.stopping.is_set() or self.is_told_to_stop:
            return "stopping"
        return "running" if self.has_started else "starting"

    def stop(self, delay: float | None = None) -> None:
        """Requests that the daemon stops, after it has gone on serving for `delay` seconds; load
        balancers see meanwhile that it is not ready.
        """
        self.is_told_to_stop = True
        if delay:
            asyncio.get_running_loop().call_later(delay, self.stopping.set)
        else:
            self.stopping.set()
