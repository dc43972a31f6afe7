"""Enforces `timeouts.request` and `timeouts.request_total`: answers 504, or aborts the answer. One
timer, for the oldest request, is enough: all have the same limits, so they expire in order.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from servd.worker.asgi.linger import answer_and_linger
from servd.worker.asgi.problem import problem
from servd.worker.asgi.request import Message, Request, Send, current, nowhere

logger = logging.getLogger("servd.worker")

_Report = Callable[[Request], None]
Live = Mapping[Request, None]
"""The requests in progress, in the order of their arrival."""

MIN_GRACE_SECONDS = 1.0
MAX_GRACE_SECONDS = 30.0
"""An aborted request counts as stuck after the time that it has taken, within these."""


@dataclass
class Timer:
    """Calls `expire` for each live request that is `seconds` old and satisfies `waits`."""

    live: Live
    seconds: float
    waits: Callable[[Request], bool]
    expire: _Report
    armed: bool = False

    def arm(self, seconds: float) -> None:
        """Checks the requests in `seconds`."""
        self.armed = True
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, self._check, context=contextvars.Context())

    def _check(self) -> None:
        self.armed = False
        now = time.perf_counter()
        for request in list(self.live):
            if not self.waits(request):
                continue
            remaining = request.begun + self.seconds - now
            if remaining > 0:
                self.arm(remaining)
                return
            self.expire(request)


class Deadlines:
    """The deadlines of the `live` requests. `report_stuck` receives aborted requests
    whose code continues: in a thread, which cannot be stopped.
    """

    def __init__(
        self, live: Live, first: float | None, last: float | None, report_stuck: _Report
    ) -> None:
        """`first` and `last` limit the time to the first and the last byte, in seconds."""
        self.report_stuck = report_stuck
        self.timers: list[Timer] = []
        if first is not None:
            self.timers.append(Timer(live, first, _has_not_begun, self.give_up))
        if last is not None:
            self.timers.append(Timer(live, last, _is_not_over, self.give_up))

    def allowed(self, request: Request) -> float | None:
        """Returns the seconds that a request may take in its present state, or None."""
        if request.answering is not None:
            return 0.0
        return min((t.seconds for t in self.timers if t.waits(request)), default=None)

    def give_up(self, request: Request) -> None:
        """Answers instead of the app, or aborts its answer, then ends its code without waiting."""
        waited = request.age()
        current.set(request)  # in the timer's own context
        logger.warning(
            "request timed out: %s %s after %.1f s"
            if request.start is None
            else "response aborted: %s %s after %.1f s",
            *(request.scope["method"], request.scope["path"], waited),
        )
        answer_instead(request, 504, f"no response within {waited:.1f} s")
        if request.task is not None:
            request.task.cancel(msg="the request took too long")
            grace = min(MAX_GRACE_SECONDS, max(MIN_GRACE_SECONDS, waited))
            asyncio.get_running_loop().call_later(grace, self._check_ended, request)

    def _check_ended(self, request: Request) -> None:
        if request.threads or (request.task is not None and not request.task.done()):
            self.report_stuck(request)


def answer_instead(
    request: Request,
    status: int,
    detail: str,
    *headers: tuple[bytes, bytes],
    receive: Any = None,
) -> None:
    """Answers instead of the app, or aborts its answer; `end_of` waits for that. With `receive`,
    what the client still sends is read.
    """
    server, request.out = request.out, nowhere
    loop = asyncio.get_running_loop()
    if request.start is None:
        request.start, body = problem(request, status, detail, *headers)
        messages = (request.start, body)
        if receive is None:
            answer = _answer(server, *messages)
        else:
            answer = answer_and_linger(server, receive, messages, _nothing)
        request.answering = loop.create_task(answer)
    else:
        request.answering = loop.create_future()
        request.answering.set_result(None)
        _abort(server)
    request.owner.finish(request)


async def end_of(request: Request, error: BaseException | None) -> None:
    """Waits for the answer sent instead, after the app's code has ended (`error`: it raised)."""
    if isinstance(error, asyncio.CancelledError):
        if request.task is not None:
            request.task.uncancel()
    elif error is not None:
        logger.error("app failed after its request timed out", exc_info=error)
    assert request.answering is not None
    await request.answering


def _has_not_begun(request: Request) -> bool:
    return request.start is None and request.answering is None


def _is_not_over(request: Request) -> bool:
    return not request.over and request.answering is None


def _nothing() -> None:
    """Stands for what has been done."""


async def _answer(server: Send, *messages: Message) -> None:
    for message in messages:
        await server(message)


def _abort(server: Send) -> None:
    """Aborts the connection, since an orderly end would look like the end of the body."""
    transport = getattr(getattr(server, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
