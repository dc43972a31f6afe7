"""An HTTP request in progress, and the one that the running code belongs to."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Protocol, cast

from servd.core.context import calling_request
from servd.wire.shm_counters import PARTS

Message = Any
Send = Callable[[Message], Awaitable[None]]

FORWARDED_HEADERS = frozenset({b"tracestate", b"baggage"})
"""Headers of W3C Trace Context and Baggage that calls to dependencies repeat unchanged."""

REQUEST_ID = b"x-request-id"
TRACEPARENT = b"traceparent"
_MAX_ID_BYTES = 128
_TRACEPARENT_BYTES = 55
_EVENT_STREAM = b"text/event-stream"

_prefix = os.urandom(6).hex()
_COUNT = itertools.count(1)


def _renew_prefix() -> None:
    """Gives the requests of a forked worker ids of their own."""
    global _prefix
    _prefix = os.urandom(6).hex()


os.register_at_fork(after_in_child=_renew_prefix)


class RequestOwner(Protocol):
    """The part of `Requests` that a request uses."""

    gauges: memoryview[int]

    def allowed(self, request: Request) -> float | None:
        """Returns the seconds that `request` may take from its beginning; None for no limit."""

    def finish(self, request: Request, last: Message = None) -> None:
        """Records that the answer of `request` is complete, with its `last` message if it has
        one.
        """


class Request:
    """A request in the app. `begun` is its arrival (of `time.perf_counter`), `start` the
    `http.response.start` that was sent, `over` whether its end was counted and logged, `waited` how
    long it waited for a place, `lacked` what is known of memory of GPUs that it lacked ("logged",
    "counted"; see `GpuErrors`). `answering` is set when its time is up: later messages are
    discarded. `threads` has an entry per thread.
    """

    __slots__ = (
        *("scope", "out", "owner", "begun", "start", "over", "holds_place", "waited"),
        *("lacked", "task", "answering", "threads", "_id", "_trace"),
    )

    def __init__(self, scope: Any, out: Send, owner: RequestOwner) -> None:
        self.scope = scope
        self.out = out
        self.owner = owner
        self.start: Message = None
        self.over = self.holds_place = False
        self.waited = 0.0
        self.lacked = ""
        self.task: asyncio.Task[Any] | None = None
        self.answering: asyncio.Future[None] | None = None
        self.threads: set[object] | None = None
        self._id: str | None = None
        self._trace: str | None = None
        self.begun = perf_counter()

    def send(self, message: Message) -> Awaitable[None]:
        """Forwards a message; counts the request before its last bytes. Saves a coroutine."""
        kind = message["type"]
        if kind == "http.response.body":
            if message.get("more_body", False):
                self.owner.gauges[PARTS] += 1
            elif not self.over:
                self.owner.finish(self, message)
        elif kind == "http.response.start":
            self.start = message
        return self.out(message)

    @property
    def id(self) -> str:
        """The X-Request-ID of the client, or one made for this request."""
        return self.identity()[0]

    @property
    def trace_id(self) -> str:
        """The id of its trace; empty without one."""
        return self.identity()[1]

    @trace_id.setter
    def trace_id(self, trace: str) -> None:
        self._trace = trace

    def identity(self) -> tuple[str, str]:
        """Returns the id and the trace id, determined at the first call."""
        known, trace = self._id, self._trace
        if known is None or trace is None:
            given, parent = "", ""
            for name, value in self.scope["headers"]:
                if name == REQUEST_ID:
                    if len(value) <= _MAX_ID_BYTES:
                        given = given or value.decode("latin-1")
                elif name == TRACEPARENT and len(value) == _TRACEPARENT_BYTES:
                    parent = value[3:35].decode("latin-1")
            known = self._id = known or given or f"{_prefix}{next(_COUNT):010x}"
            trace = self._trace = parent if trace is None else trace
        return known, trace

    @property
    def is_event_stream(self) -> bool:
        """Whether its answer is an event stream that has begun and not ended."""
        if self.start is None or self.over:
            return False
        given = self.start.get("headers", ())
        types = (value.lower() for name, value in given if name.lower() == b"content-type")
        return bool(next(types, b"").startswith(_EVENT_STREAM))

    def traceparent(self) -> bytes:
        """Returns the W3C traceparent of the client, or one made for this request (version 00,
        sampled: samplers that follow their parent would otherwise drop the trace).
        """
        for name, value in self.scope["headers"]:
            if name == TRACEPARENT and len(value) == _TRACEPARENT_BYTES:
                return bytes(value)
        if not self.trace_id:
            self.trace_id = os.urandom(16).hex()
        return f"00-{self.trace_id}-{os.urandom(8).hex()}-01".encode()

    def handed_on(self) -> list[tuple[bytes, bytes]]:
        """Returns the headers for calls that this request makes."""
        passed = [pair for pair in self.scope["headers"] if pair[0] in FORWARDED_HEADERS]
        return [(REQUEST_ID, self.id.encode("latin-1")), (TRACEPARENT, self.traceparent()), *passed]

    def age(self) -> float:
        """Returns the seconds since its arrival."""
        return perf_counter() - self.begun

    def remaining(self) -> float | None:
        """Returns the seconds left, maybe negative; None without a limit, or once it is over."""
        allowed = self.owner.allowed(self)
        return None if allowed is None else self.begun + allowed - perf_counter()


current = cast("ContextVar[Request | None]", calling_request)
"""The request that the running code answers, also in threads of the pool."""


async def nowhere(_: Message) -> None:
    """Discards messages that are too late."""
