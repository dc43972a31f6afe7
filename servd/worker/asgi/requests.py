"""What servd does around every request, in one place, since every layer around an app costs each of
its requests: counting, logging, identity, limits, deadlines. Pure ASGI; WebSockets, streams and the
lifespan pass as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from servd.wire import shm_counters
from servd.wire.worker_spec import AppSpec
from servd.worker.asgi.access_log import AccessLog
from servd.worker.asgi.concurrency import ConcurrencyLimiter
from servd.worker.asgi.deadlines import Deadlines, answer_instead, end_of
from servd.worker.asgi.problem import problem
from servd.worker.asgi.request import Request, current, nowhere

RETRY_AFTER = (b"retry-after", b"1")
CLOSE = (b"connection", b"close")
_TWO_LENGTHS = "a request has either content-length or transfer-encoding"
_TOO_LARGE = "the body is larger than this service takes"
_BUSY = "this worker answers as many requests as it may; try again"
_END = {"type": "http.response.body", "body": b"", "more_body": False}
_HUNG_UP = 499
"""What is counted for a client that went away before its answer began (as nginx has it)."""
_PATIENCE = 0.5
"""Seconds that a client may take to make room for the end of its stream."""


class Requests:
    """The outermost application: knows every request that is being answered.

    `recycle` is told the reason why this worker should be replaced; `trace_id` tells the trace of
    the running code, where somebody keeps one.
    """

    def __init__(
        self,
        app: Any,
        spec: AppSpec,
        counters: shm_counters.Counters,
        access_log: AccessLog | None,
        recycle: Callable[[str], None],
    ) -> None:
        self.app = app
        self.counters = counters
        self.gauges = counters.gauges
        self._answered = counters.answered
        self.access_log = access_log
        self.recycle = recycle
        self.trace_id: Callable[[], str] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.live: dict[Request, None] = {}
        self.stuck: set[Request] = set()
        self.exempt = exempt_paths(spec.root_path, spec.health_path)
        limits, timeouts = spec.limits, spec.timeouts
        self.body_limit = limits.body
        self.doubts_lengths = False
        self.places: ConcurrencyLimiter | None = None
        if limits.concurrency:
            self.places = ConcurrencyLimiter(limits.concurrency, limits.queue, self._waiting)
        self.deadlines = Deadlines(
            self.live, timeouts.request, timeouts.request_total, self._is_stuck
        )
        self._timers = self.deadlines.timers
        jitter = random.randint(0, limits.max_requests_jitter)  # noqa: S311  # spreads recycling
        self._left = limits.max_requests + jitter if limits.max_requests else 0
        self._bind = _structlog_binder()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Runs the app for one request, connection or lifespan."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        request = Request(scope, send, self)
        current.set(request)
        live, gauges = self.live, self.gauges
        live[request] = None
        gauges[shm_counters.IN_FLIGHT] = len(live)
        if self._timers:
            request.task = asyncio.current_task(self.loop)
            for timer in self._timers:
                if not timer.armed:
                    timer.arm(timer.seconds)
        if self._bind is not None:
            self._bind(request_id=request.id)
        error: BaseException | None = None
        if self.body_limit is not None:
            receive = self._bounded(request, receive, self.body_limit)
        try:
            places = self.places
            if self.doubts_lengths and _has_two_lengths(scope):
                for message in problem(request, 400, _TWO_LENGTHS, CLOSE):
                    await request.send(message)
            elif self.body_limit is not None and _announced(scope) > self.body_limit:
                self.counters.rejected("body")
                for message in problem(request, 413, _TOO_LARGE, CLOSE):
                    await request.send(message)
            elif places is None or scope["path"] in self.exempt:
                await self.app(scope, receive, request.send)
            elif places.free > 0:
                places.free -= 1
                try:
                    await self.app(scope, receive, request.send)
                finally:
                    places.give()
            else:
                await self._in_turn(places, request, receive)
        except BaseException as raised:
            cut = isinstance(raised, asyncio.CancelledError) and _has_hung_up(request)
            if request.answering is None and not cut:
                request.task = None
                raise
            error = raised
        finally:
            del live[request]
            gauges[shm_counters.IN_FLIGHT] = len(live)
            if not request.over and request.answering is None:
                if request.start is None and _has_hung_up(request):
                    request.start = {"status": _ended_with(request)}
                self.finish(request)
        if request.answering is not None:
            self._unstick(request)
            await end_of(request, error)
        request.task = None  # which holds the context that holds the request

    def _bounded(self, request: Request, receive: Any, limit: int) -> Any:
        """`receive` for bodies that do not say how long they are: what is more than the limit is
        answered with 413, and for the app the client has gone.
        """
        total = 0

        async def bounded() -> Any:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total <= limit:
                return message
            if request.answering is None and not request.over:
                self.counters.rejected("body")
                answer_instead(request, 413, _TOO_LARGE, CLOSE)
            return {"type": "http.disconnect"}

        return bounded

    async def _in_turn(self, places: ConcurrencyLimiter, request: Request, receive: Any) -> None:
        """Runs the app once there is a place again, or answers 503 at once."""
        if places.full:
            self.counters.rejected("concurrency")
            for message in problem(request, 503, _BUSY, RETRY_AFTER):
                await request.send(message)
            return
        await places.take()
        try:
            if not _has_hung_up(request):
                await self.app(request.scope, receive, request.send)
        finally:
            places.give()

    async def _other(self, scope: Any, receive: Any, send: Any) -> None:
        """WebSockets are counted; nothing else is done to them."""
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        current.set(request := Request(scope, send, self))
        if self._bind is not None:
            self._bind(request_id=request.id)
        self.gauges[shm_counters.WEBSOCKETS] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.gauges[shm_counters.WEBSOCKETS] -= 1

    def finish(self, request: Request) -> None:
        """Counts and logs a request whose answer is complete, or never will be."""
        request.over = True
        seconds = perf_counter() - request.begun
        status = request.start["status"] if request.start is not None else 500
        self._answered(request.scope["method"], status, seconds)
        if self.trace_id is not None:
            request.trace_id = self.trace_id() or request.trace_id
        if self.access_log is not None:
            self.access_log.add(request, status, seconds)
        if self._left > 0:
            self._left -= 1
            if not self._left:
                self.recycle("max_requests")

    def allowed(self, request: Request) -> float | None:
        """How many seconds `request` may take; None for any number. WebSockets may take any."""
        if request.answering is None and request not in self.live:
            return None
        return self.deadlines.allowed(request)

    def _waiting(self, count: int) -> None:
        self.gauges[shm_counters.QUEUED] = count

    def _is_stuck(self, request: Request) -> None:
        self.stuck.add(request)
        self.gauges[shm_counters.STUCK] = len(self.stuck)
        self.recycle("stuck")

    def _unstick(self, request: Request) -> None:
        self.stuck.discard(request)
        self.gauges[shm_counters.STUCK] = len(self.stuck)

    @property
    def given_up(self) -> set[asyncio.Task[Any]]:
        """Tasks of requests that have their answer, though the app's code runs on."""
        return {r.task for r in self.live if r.answering is not None and r.task is not None}

    @property
    def streams(self) -> list[Request]:
        """Requests whose answers are event streams that are open."""
        return [request for request in self.live if request.is_event_stream]

    async def end_streams(self) -> None:
        """Ends every open event stream, and with it the code of the app that feeds it. Whoever
        reads a stream (WHATWG HTML, 9.2) takes its end for a reason to connect again, and a
        connection that breaks for an error.
        """
        await asyncio.gather(*(_end(request) for request in self.streams))


async def _end(stream: Request) -> None:
    server, stream.out = stream.out, nowhere
    stream.owner.finish(stream)
    stream.answering = asyncio.ensure_future(_last_word(server))
    await asyncio.wait({stream.answering})
    if stream.task is not None:
        stream.task.cancel()


async def _last_word(server: Any) -> None:
    with contextlib.suppress(Exception):  # a client that is gone needs no end
        await asyncio.wait_for(server(_END), _PATIENCE)


def exempt_paths(root_path: str, health_path: str) -> frozenset[str]:
    """Paths that are answered however busy the worker is, as they stand in a scope: Uvicorn puts
    the root path in front.
    """
    return frozenset(root_path + path for path in ("/metrics", health_path) if path)


def _has_two_lengths(scope: Any) -> bool:
    """Whether another server could see another end of its body (RFC 9112, 6.1 and 11.2): httptools
    refuses such a request, h11 does not.
    """
    names = {name for name, _ in scope["headers"]}
    return {b"content-length", b"transfer-encoding"} <= names


def _announced(scope: Any) -> int:
    """Bytes of the body that a request says it has; 0 when it does not say."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
    return 0


def _ended_with(request: Request) -> int:
    """Why a client has gone: of itself, or since it sent too slowly."""
    cycle = getattr(request.out, "__self__", None)
    return int(getattr(cycle, "ended_with", _HUNG_UP))


def _has_hung_up(request: Request) -> bool:
    """Whether the client has gone while its request waited (known to Uvicorn's request cycle)."""
    return bool(getattr(getattr(request.out, "__self__", None), "disconnected", False))


def _structlog_binder() -> Callable[..., Any] | None:
    """What puts the request id into structlog's context, where the app uses structlog."""
    if "structlog" not in sys.modules:
        return None
    from structlog.contextvars import bind_contextvars

    return bind_contextvars
