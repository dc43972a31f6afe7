"""servd's middleware: counting, logging, identity, limits, deadlines, in one layer, since every
layer costs each request. Pure ASGI; WebSockets, streams and the lifespan pass unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from servd.http.balance import Balance
from servd.wire.shm_counters import IN_FLIGHT, PARTS, QUEUED, STUCK, WEBSOCKETS
from servd.wire.worker_spec import AppSpec, LimitSpec
from servd.worker.asgi.access_log import AccessLog
from servd.worker.asgi.concurrency import ConcurrencyLimiter
from servd.worker.asgi.deadlines import Deadlines, answer_instead, end_of
from servd.worker.asgi.handshake import SWITCHING_PROTOCOLS, Handshake
from servd.worker.asgi.linger import answer_and_linger
from servd.worker.asgi.problem import problem
from servd.worker.asgi.request import Message, Request, current, nowhere
from servd.worker.gpu_errors import GpuErrors
from servd.worker.http_rules import BODILESS
from servd.worker.reporter import Reporter

RETRY_AFTER = (b"retry-after", b"1")
CLOSE = (b"connection", b"close")
_TWO_LENGTHS = "a request must not have both content-length and transfer-encoding"
_TOO_LARGE = "the body exceeds the limit of this service"
_BUSY = "this worker is at its concurrency limit; try again later"
_END = {"type": "http.response.body", "body": b"", "more_body": False}
_CLIENT_CLOSED_REQUEST = 499
"""The status, from nginx, that is counted for a client that left before its answer began."""
_STREAM_END_SECONDS = 0.5
"""Time for a client to make room for the end of its stream."""


class Requests:
    """Tracks every request in progress. `trace_id` returns the trace id of the running code."""

    def __init__(
        self,
        app: Any,
        spec: AppSpec,
        reporter: Reporter,
        access_log: AccessLog | None,
        trace_id: Callable[[], str] | None,
    ) -> None:
        self.app = app
        self.counters = reporter.counters
        self.gauges = self.counters.gauges
        self._answered = self.counters.answered
        self._worked = self.counters.worked
        self.access_log = access_log
        self.recycle = reporter.recycle
        self.gpu_errors = GpuErrors(reporter, spec.oom_limit, has_gpus=spec.has_gpus)
        self.trace_id = trace_id
        self.loop: asyncio.AbstractEventLoop | None = None
        self.live: dict[Request, None] = {}
        self.stuck: set[Request] = set()
        self.exempt = exempt_paths(spec.root_path, spec.health_path)
        limits, timeouts = spec.limits, spec.timeouts
        self.body_limit = limits.body
        self.doubts_lengths = False
        self.balance = Balance(reporter.seat)
        self.permits = self._limiter(limits) if limits.concurrency else None
        first, last = timeouts.request, timeouts.request_total
        self.deadlines = Deadlines(self.live, first, last, self._add_stuck)
        self._timers = self.deadlines.timers
        jitter = random.randint(0, limits.max_requests_jitter)  # noqa: S311  # spreads recycling
        self._remaining = limits.max_requests + jitter if limits.max_requests else 0
        self._bind: Callable[..., Any] | None = None
        if "structlog" in sys.modules:
            from structlog.contextvars import bind_contextvars

            self._bind = bind_contextvars

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Runs the app for one request (the hot path), connection or lifespan."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        request = Request(scope, send, self)
        current.set(request)
        live, gauges = self.live, self.gauges
        live[request] = None
        gauges[IN_FLIGHT] = len(live)
        if self._timers:
            request.task = asyncio.current_task(self.loop)
            for timer in self._timers:
                if not timer.armed:
                    timer.arm(timer.seconds)
        if self._bind is not None:
            self._bind(request_id=request.id)
        error: BaseException | None = None
        unbounded = receive
        if self.body_limit is not None:
            receive = self._bounded(request, receive, self.body_limit)
        try:
            permits = self.permits
            checked = self.doubts_lengths or self.body_limit is not None
            if checked and (refusal := self._refusal(request)):
                counted = functools.partial(self.finish, request)
                await answer_and_linger(request.send, unbounded, refusal, counted)
            elif permits is None or self._is_exempt(request):
                await self.app(scope, receive, request.send)
            elif permits.free > 0:
                permits.take()
                request.holds_place = True
                await self.app(scope, receive, request.send)
            else:
                await self._wait_and_run(permits, request, receive)
        except BaseException as raised:
            cut = isinstance(raised, asyncio.CancelledError) and _has_hung_up(request)
            if isinstance(raised, Exception):
                self._failed(request, raised)
            if request.answering is None and not cut:
                request.task = None
                raise
            error = raised
        finally:
            if request.holds_place:
                request.holds_place = False
                self.permits.release()  # type: ignore[union-attr]  # it gave the place
            del live[request]
            gauges[IN_FLIGHT] = len(live)
            if not request.over and request.answering is None:
                self._finish_unanswered(request)
        if request.answering is not None:
            self.stuck.discard(request)
            gauges[STUCK] = len(self.stuck)
            await end_of(request, error)
        request.task = None  # it holds the context that holds the request

    def _failed(self, request: Request, error: Exception) -> None:
        """Counts a request whose app raised `error`, and learns from that."""
        if not request.over and request.answering is None:
            self._finish_unanswered(request)
        self.gpu_errors.saw(error)

    def _refusal(self, request: Request) -> tuple[Message, Message] | None:
        if self.doubts_lengths and _has_two_lengths(request.scope):
            return problem(request, 400, _TWO_LENGTHS, CLOSE)
        if self.body_limit is not None and _content_length(request.scope) > self.body_limit:
            self.counters.rejected("body")
            return problem(request, 413, _TOO_LARGE, CLOSE)
        return None

    def _bounded(self, request: Request, receive: Any, limit: int) -> Any:
        """Answers 413 when a body exceeds `limit`; the app sees a disconnected client."""
        total = 0

        async def bounded() -> Any:
            nonlocal total
            if total > limit:
                return {"type": "http.disconnect"}
            message = await receive()
            total += len(message.get("body", b""))
            if total <= limit:
                return message
            if request.answering is None and not request.over:
                self.counters.rejected("body")
                answer_instead(request, 413, _TOO_LARGE, CLOSE, receive=receive)
            return {"type": "http.disconnect"}

        return bounded

    def _limiter(self, limits: LimitSpec) -> ConcurrencyLimiter:
        permits = ConcurrencyLimiter(
            limits.concurrency, limits.queue, self._set_waiting, self.balance.publish
        )
        self.balance.places = lambda: permits.free
        return permits

    def _is_exempt(self, request: Request) -> bool:
        """Whether a request needs no place. The claim of its connection ends."""
        if self.balance.claims:
            self.balance.asked(_connection_of(request))
        if request.scope["path"] not in self.exempt:
            return False
        self.balance.publish()
        return True

    async def _wait_and_run(
        self, permits: ConcurrencyLimiter, request: Request, receive: Any
    ) -> None:
        """Runs the app when there is a permit; answers 503 immediately if the queue is full. A
        request whose connection is here already cannot go to a sibling with a free place: it waits
        instead of being refused, and its client is told to connect anew.
        """
        elsewhere = self.balance.free_elsewhere()
        if permits.is_full(elsewhere):
            self.counters.rejected("concurrency")
            for message in problem(request, 503, _BUSY, RETRY_AFTER):
                await request.send(message)
            return
        await permits.acquire()
        request.holds_place = True
        request.waited = perf_counter() - request.begun
        if elsewhere and self.balance.may_move():
            _ask_to_close(request)
        if not _has_hung_up(request):
            await self.app(request.scope, receive, request.send)

    async def _other(self, scope: Any, receive: Any, send: Any) -> None:
        """Runs the app for a WebSocket, which is counted, or for the lifespan."""
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        handshake = Handshake(send)
        request = Request({**scope, "method": "GET"}, send, self)
        current.set(request)
        if self._bind is not None:
            self._bind(request_id=request.id)
        self.gauges[WEBSOCKETS] += 1
        try:
            await self.app(scope, receive, handshake.send)
        except Exception as error:
            self.gpu_errors.saw(error)
            await handshake.fail()
            raise
        finally:
            self.gauges[WEBSOCKETS] -= 1
            if handshake.status != SWITCHING_PROTOCOLS:  # counted and logged like any answer
                request.start = {"status": handshake.status}
                self.finish(request)

    def finish(self, request: Request, last: Message = None) -> None:
        """Counts and logs a request whose response is complete or aborted. What the app does
        after its answer (a background task) takes no place of `limits.concurrency`. A body that is
        not as long as its head says is a failure, whatever the status was: the client is cut off.
        """
        request.over = True
        now = perf_counter()
        seconds = now - request.begun
        if request.holds_place or (
            self.permits is None and request.scope["path"] not in self.exempt
        ):
            self._worked(seconds - request.waited, request.waited, now)
        if request.holds_place and request.answering is None:
            request.holds_place = False
            self.permits.release()  # type: ignore[union-attr]  # it gave the place
        start = request.start
        status = start["status"] if start is not None else 500
        if last is not None and _is_of_another_length(request, last):
            status = 500
        if request.lacked and status >= 500:
            self.gpu_errors.failed(request)
        self._answered(request.scope["method"], status, seconds)
        if self.trace_id is not None:
            request.trace_id = self.trace_id() or request.trace_id
        if self.access_log is not None:
            self.access_log.add(request, status, seconds)
        if self._remaining > 0:
            self._remaining -= 1
            if not self._remaining:
                self.recycle("max_requests")

    def _finish_unanswered(self, request: Request) -> None:
        if request.start is None and _has_hung_up(request):
            cycle = getattr(request.out, "__self__", None)  # `SlowClients` sets 408
            status = getattr(cycle, "ended_with", _CLIENT_CLOSED_REQUEST)
            request.start = {"status": int(status)}
        self.finish(request)

    def allowed(self, request: Request) -> float | None:
        """Returns the seconds that `request` may take; None for no limit, as for WebSockets."""
        if request.answering is None and request not in self.live:
            return None
        return self.deadlines.allowed(request)

    def _set_waiting(self, count: int) -> None:
        self.gauges[QUEUED] = count

    def _add_stuck(self, request: Request) -> None:
        self.stuck.add(request)
        self.gauges[STUCK] = len(self.stuck)
        self.recycle("stuck")

    def note_waits(self) -> None:
        """Counts as progress that every request waits for its client: the app is not to blame."""
        if self.live and all(map(_waits_for_its_client, self.live)):
            self.gauges[PARTS] += 1

    @property
    def given_up(self) -> set[asyncio.Task[Any]]:
        """Tasks of requests that were answered while the app's code continues."""
        return {r.task for r in self.live if r.answering is not None and r.task is not None}

    @property
    def streams(self) -> list[Request]:
        """Requests whose answers are open event streams."""
        return [request for request in self.live if request.is_event_stream]

    async def end_streams(self) -> None:
        """Ends every open event stream and its code. A client reconnects after the end of a stream
        (WHATWG HTML, 9.2), but reports a broken connection as an error.
        """
        await asyncio.gather(*(_end_stream(request) for request in self.streams))


async def _end_stream(stream: Request) -> None:
    server, stream.out = stream.out, nowhere
    stream.owner.finish(stream)

    async def send_end() -> None:
        with contextlib.suppress(Exception):  # the client may be gone
            await asyncio.wait_for(server(_END), _STREAM_END_SECONDS)

    stream.answering = asyncio.ensure_future(send_end())
    await asyncio.wait({stream.answering})
    if stream.task is not None:
        stream.task.cancel()


def exempt_paths(root_path: str, health_path: str) -> frozenset[str]:
    """Returns the paths that bypass the limits, with the root path that Uvicorn prepends."""
    return frozenset(root_path + path for path in ("/metrics", health_path) if path)


def _has_two_lengths(scope: Any) -> bool:
    """Whether servers may disagree on its end (RFC 9112, 6.1 and 11.2); h11 does not refuse it."""
    names = {name for name, _ in scope["headers"]}
    return {b"content-length", b"transfer-encoding"} <= names


def _content_length(scope: Any) -> int:
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


def _is_of_another_length(request: Request, last: Message) -> bool:
    """Whether Uvicorn's cycle expects another length of the last part of the body. Neither it nor
    h11 has a public name for what is left.
    """
    cycle: Any = getattr(request.out, "__self__", None)
    if getattr(cycle, "chunked_encoding", None) is False:
        left = cycle.expected_content_length
    else:  # maybe h11's
        connection = getattr(cycle, "conn", None)
        left = getattr(getattr(connection, "_writer", None), "_length", None)
    if left is None or left == len(last.get("body", b"")):
        return False
    start = request.start
    has_no_body = start is not None and start["status"] in BODILESS
    return not has_no_body and bool(request.scope["method"] != "HEAD")


def current_is_over() -> bool:
    """Whether the rest of the running request's response is unneeded: its client has gone, or its
    time is up.
    """
    request = current.get()
    return request is not None and (request.answering is not None or _has_hung_up(request))


def _connection_of(request: Request) -> Any:
    """The protocol of its connection, which Uvicorn's cycle calls at its end; None if it has."""
    end = getattr(getattr(request.out, "__self__", None), "on_response", None)
    return getattr(end, "__self__", None)


def _ask_to_close(request: Request) -> None:
    """Has its answer say `Connection: close`, unless another request follows on the connection."""
    connection = _connection_of(request)
    if connection is None or connection.cycle is not request.out.__self__:  # type: ignore[attr-defined]
        return
    cycle = connection.cycle
    if CLOSE not in cycle.default_headers:
        cycle.default_headers = [*cycle.default_headers, CLOSE]


def _has_hung_up(request: Request) -> bool:
    """Whether the client has disconnected (known to Uvicorn's request cycle)."""
    return bool(getattr(getattr(request.out, "__self__", None), "disconnected", False))


def _waits_for_its_client(request: Request) -> bool:
    """Whether the client has to send more of its request, or to take more of the answer."""
    cycle = getattr(request.out, "__self__", None)
    flow = getattr(cycle, "flow", None)
    if flow is None:
        return False
    return bool(flow.write_paused or (getattr(cycle, "more_body", False) and not flow.read_paused))
