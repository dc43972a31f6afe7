"""Uvicorn's protocol for h11 (`uvicorn = { http = "h11" }`) that reports what it waits for."""

from __future__ import annotations

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from servd.worker.slow_clients import BODY, HEAD, NOTHING, Awaited


class PatientH11Protocol(H11Protocol):
    """Uvicorn's h11 protocol with a count of reads, for `SlowClients`."""

    received = 0
    awaited_before: Awaited | None = None
    awaited_since = 0.0

    def data_received(self, data: bytes) -> None:
        """Extends Uvicorn's method: counts the read."""
        self.received += 1
        super().data_received(data)

    @property
    def awaited(self) -> Awaited | None:
        """The missing part of a request; None when it is not the client's turn."""
        state = self.conn.their_state
        if state is h11.IDLE:
            if self.conn.trailing_data[0]:
                return Awaited(HEAD, id(self.scope))
            return Awaited(NOTHING, None) if self.scope is None else None
        cycle = self.cycle
        if state is not h11.SEND_BODY or cycle is None or self.flow.read_paused:
            return None
        return None if cycle.waiting_for_100_continue else Awaited(BODY, self.received)
