"""Uvicorn's protocol for h11 (`uvicorn = { http = "h11" }`): it reports what it waits for, refuses
heads that h11 takes (lines that end with LF alone, folded ones, longer ones than `limits.head`
that arrive at once), and answers no request with 400 in the middle of the app's answer.
"""

from __future__ import annotations

import logging
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from servd.worker.guarded_connection import GuardedConnection
from servd.worker.http_rules import (
    BAD_REQUEST,
    Refusal,
    RefusedHeadError,
    refusal_of,
    refusal_of_text,
)
from servd.worker.slow_clients import BODY, HEAD, NOTHING, Awaited, refuse
from servd.worker.websocket_handshake import follow, refusal_of_handshake

log = logging.getLogger("servd.worker")


class CountingConnection(h11.Connection):
    """Counts the content of a body, and its parts."""

    content_bytes = 0
    parts = 0

    def next_event(self) -> Any:
        """Extends h11's method."""
        event = super().next_event()
        if type(event) is h11.Data:
            self.content_bytes += len(event.data)
            self.parts += 1
        return event


class PatientH11Protocol(GuardedConnection, H11Protocol):
    """Uvicorn's h11 protocol with a count of reads, for `SlowClients`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn: CountingConnection = CountingConnection(h11.SERVER, self.head_limit)

    def data_received(self, data: bytes) -> None:
        """Extends Uvicorn's method: counts the read, and what frames a body."""
        self.received += 1
        before = self.conn.content_bytes
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY:
            framing = len(data) - (self.conn.content_bytes - before)
            self._count_framing(framing, self.conn.parts)

    def handle_events(self) -> None:
        """Extends Uvicorn's method: refuses what no server should take."""
        if self.conn.their_state is h11.IDLE:
            refused = refusal_of_text(self.conn.trailing_data[0], self.head_limit)
            if refused is not None:
                self._fail(refused)
                return
        try:
            super().handle_events()
        except RefusedHeadError as error:
            self._fail(error.refusal)

    def _should_upgrade(self) -> bool:
        """Replaces Uvicorn's method, which is called with each head. Raises `RefusedHeadError`."""
        refused = refusal_of(self.headers, self.scope["http_version"])
        if refused is not None:
            raise RefusedHeadError(refused)
        self._tell_certificate()
        return self._get_upgrade() == b"websocket" and self._should_upgrade_to_ws()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Extends Uvicorn's method: refuses what the library would not answer."""
        refused = refusal_of_handshake(self.scope["method"], event.target, self.headers)
        if refused is not None:
            raise RefusedHeadError(refused)
        super().handle_websocket_upgrade(event)
        follow(self)

    def send_400_response(self, msg: str) -> None:
        """Replaces Uvicorn's method, which fails while an answer is under way."""
        self._fail(BAD_REQUEST)

    def _fail(self, refusal: Refusal) -> None:
        log.info("request rejected: %s", refusal.reason)
        cycle = self.cycle
        answering = cycle is not None and not cycle.response_complete
        if not answering or not cycle.response_started:
            refuse(self, *refusal)
        if answering:
            cycle.ended_with = refusal.status  # type: ignore[attr-defined]
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

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
