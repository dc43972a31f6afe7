"""Where the daemon is between its start and its end."""

from __future__ import annotations

import asyncio
from typing import Literal

Phase = Literal["starting", "running", "stopping"]


class Lifecycle:
    """One value for all components: `stopping` is set once the daemon shall end, `has_started` once
    the first start is over.
    """

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.has_started = False
        self.is_told_to_stop = False

    @property
    def phase(self) -> Phase:
        """What the daemon is doing, apart from reloads."""
        if self.stopping.is_set():
            return "stopping"
        return "running" if self.has_started else "starting"

    def stop(self) -> None:
        """Asks the daemon to end."""
        self.is_told_to_stop = True
        self.stopping.set()
