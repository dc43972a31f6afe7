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
        if self.stopping.is_set():
            return "stopping"
        return "running" if self.has_started else "starting"

    def stop(self) -> None:
        """Requests that the daemon stops."""
        self.is_told_to_stop = True
        self.stopping.set()
