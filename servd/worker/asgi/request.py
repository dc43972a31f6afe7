"""One HTTP request that is being answered, and the one that the running code belongs to."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Protocol, cast

from servd.core.context import calling_request

Message = Any
Send = Callable[[Message], Awaitable[None]]

HANDED_ON = frozenset({b"tracestate", b"baggage"})
"""Headers of W3C Trace Context and Baggage that calls to dependencies carry on unchanged."""

REQUEST_ID = b"x-request-id"
TRACEPARENT = b"traceparent"
_LONGEST_ID = 128
_TRACEPARENT_LENGTH = 55
_EVENT_STREAM = b"text/event-stream"

_PREFIX = os.urandom(6).hex()
_COUNT = itertools.count(1)


class RequestOwner(Protocol):
    """What all requests of a worker share."""

    def allowed(self, request: Request) -> float | None:
        """How many seconds `request` may take from its beginning; None for any number."""

    def finish(self, request: Request) -> None:
        """The answer of `request` is complete."""


class Request:
    """A request on its way through the app.

    `begun` is when it came (of `time.perf_counter`), `start` its `http.response.start` once that
    was sent, `over` whether its end has been counted and logged. `answering` is set once its time
    is up: what the app sends from then on goes nowhere. `threads` has an entry for each thread
    that works for it.
    """

    # what most requests never get stands here, which makes one of them cheap
    start: Message = None
    over = False
    task: asyncio.Task[Any] | None = None
    answering: asyncio.Future[None] | None = None
    threads: set[object] | None = None
    _id: str | None = None
    _trace: str | None = None

    def __init__(self, scope: Any, out: Send, owner: RequestOwner) -> None:
        self.scope = scope
        self.out = out
        self.owner = owner
        self.begun = perf_counter()

    def send(self, message: Message) -> Awaitable[None]:
        """What the app sends through. Counts before the last bytes are written, and hands the
        coroutine of the server through, which spares a second one.
        """
        kind = message["type"]
        if kind == "http.response.body":
            if not message.get("more_body", False) and not self.over:
                self.owner.finish(self)
        elif kind == "http.response.start":
            self.start = message
        return self.out(message)

    @property
    def id(self) -> str:
        """The X-Request-ID that the client sent, or one made for this request."""
        return self.identity()[0]

    @property
    def trace_id(self) -> str:
        """The trace that it belongs to; empty while nothing has made it part of one."""
        return self.identity()[1]

    @trace_id.setter
    def trace_id(self, trace: str) -> None:
        self._trace = trace

    def identity(self) -> tuple[str, str]:
        """Its id and its trace, which are found out when somebody asks for them."""
        known, trace = self._id, self._trace
        if known is None or trace is None:
            given, parent = "", ""
            for name, value in self.scope["headers"]:
                if name == REQUEST_ID:
                    if len(value) <= _LONGEST_ID:
                        given = given or value.decode("latin-1")
                elif name == TRACEPARENT and len(value) == _TRACEPARENT_LENGTH:
                    parent = value[3:35].decode("latin-1")
            known = self._id = known or given or f"{_PREFIX}{next(_COUNT):010x}"
            trace = self._trace = parent if trace is None else trace
        return known, trace

    @property
    def is_event_stream(self) -> bool:
        """Whether its answer has begun, and is an event stream."""
        if self.start is None or self.over:
            return False
        for name, value in self.start.get("headers", ()):
            if name.lower() == b"content-type":
                return bool(value.lower().startswith(_EVENT_STREAM))
        return False

    def traceparent(self) -> bytes:
        """The W3C traceparent that the client sent, or one made for this request (version 00,
        sampled: who samples by its parent would otherwise drop what nobody has decided about).
        """
        for name, value in self.scope["headers"]:
            if name == TRACEPARENT and len(value) == _TRACEPARENT_LENGTH:
                return bytes(value)
        if not self.trace_id:
            self.trace_id = os.urandom(16).hex()
        return f"00-{self.trace_id}-{os.urandom(8).hex()}-01".encode()

    def handed_on(self) -> list[tuple[bytes, bytes]]:
        """Headers for calls that this request makes."""
        passed = [pair for pair in self.scope["headers"] if pair[0] in HANDED_ON]
        return [(REQUEST_ID, self.id.encode("latin-1")), (TRACEPARENT, self.traceparent()), *passed]

    def age(self) -> float:
        """Seconds since it came."""
        return perf_counter() - self.begun

    def remaining(self) -> float | None:
        """Seconds until its time is up, less than none when it is; None where it has all the time,
        as a task has that the request has left behind.
        """
        allowed = self.owner.allowed(self)
        return None if allowed is None else self.begun + allowed - perf_counter()


current = cast("ContextVar[Request | None]", calling_request)
"""The request that the running code answers; in threads of the pool too."""


async def nowhere(_: Message) -> None:
    """Where messages go that come too late."""
