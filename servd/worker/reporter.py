"""Reports of a worker to the daemon."""

from __future__ import annotations

from typing import NamedTuple

from servd.wire.accept_board import Seat
from servd.wire.shm_counters import Counters
from servd.worker.channel import Channel
from servd.worker.events import EventWriter


class Reporter(NamedTuple):
    """The ways from a worker to the daemon: events, counters, and messages on the channel; and its
    seat among its siblings.
    """

    writer: EventWriter
    counters: Counters
    channel: Channel
    seat: Seat

    def recycle(self, reason: str, error: str = "") -> None:
        """Asks for the replacement of this worker; `error` is what has failed."""
        self.channel.send(recycle=reason, error=error)

    def draining(self, counts: dict[str, int]) -> None:
        """Reports how many of each kind the drain waits for."""
        self.channel.send(draining=counts)
