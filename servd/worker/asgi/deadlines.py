"""`timeouts.request` and `timeouts.request_total`: what takes longer is answered 504, or aborted.

All requests of a worker have the same time, so they are due in the order in which they came: one
timer, for the oldest, does for all of them.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Mapping

from servd.worker.asgi.problem import problem
from servd.worker.asgi.request import Message, Request, Send, current, nowhere

logger = logging.getLogger("servd.worker")

Live = Mapping[Request, None]
"""The requests that are being answered, in the order in which they came."""

SHORTEST_GRACE = 1.0
LONGEST_GRACE = 30.0
"""Bounds of the seconds after which a request that was given up counts as stuck: as long again as
it was allowed to take."""


class Timer:
    """Calls `expire` for each live request that is `seconds` old and `waits`."""

    def __init__(
        self,
        live: Live,
        seconds: float,
        waits: Callable[[Request], bool],
        expire: Callable[[Request], None],
    ) -> None:
        self.live = live
        self.seconds = seconds
        self.waits = waits
        self.expire = expire
        self.armed = False

    def arm(self, seconds: float) -> None:
        """Looks for requests that are due in so many seconds."""
        self.armed = True
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, self._look, context=contextvars.Context())

    def _look(self) -> None:
        """Ends what is due, and looks again when the next one is."""
        self.armed = False
        now = time.perf_counter()
        for request in list(self.live):
            if not self.waits(request):
                continue
            left = request.begun + self.seconds - now
            if left > 0:
                self.arm(left)
                return
            self.expire(request)


class Deadlines:
    """The deadlines of the `live` requests. `stuck` is told those that were given up and whose
    code runs on all the same: in a thread, which nobody can end.
    """

    def __init__(
        self,
        live: Live,
        first_byte: float | None,
        last_byte: float | None,
        stuck: Callable[[Request], None],
    ) -> None:
        self.stuck = stuck
        self.timers: list[Timer] = []
        if first_byte is not None:
            self.timers.append(Timer(live, first_byte, _has_not_begun, self.give_up))
        if last_byte is not None:
            self.timers.append(Timer(live, last_byte, _is_not_over, self.give_up))

    def allowed(self, request: Request) -> float | None:
        """Seconds that a request may take, as far as it has come; None without a deadline."""
        if request.answering is not None:
            return 0.0
        return min((t.seconds for t in self.timers if t.waits(request)), default=None)

    def give_up(self, request: Request) -> None:
        """Answers in the app's place, or breaks off what it has begun, and ends its code. The
        client need not wait for that end.
        """
        waited = request.age()
        current.set(request)  # in a context of the timer's own
        what = (request.scope["method"], request.scope["path"], waited)
        loop = asyncio.get_running_loop()
        logger.warning(
            "request timed out: %s %s after %.1f s"
            if request.start is None
            else "response aborted: %s %s after %.1f s",
            *what,
        )
        answer_instead(request, 504, f"no answer within {waited:.1f} s")
        if request.task is not None:
            request.task.cancel(msg="the request took too long")
            grace = min(LONGEST_GRACE, max(SHORTEST_GRACE, waited))
            loop.call_later(grace, self._look_after, request)

    def _look_after(self, request: Request) -> None:
        if request.threads or (request.task is not None and not request.task.done()):
            self.stuck(request)


def answer_instead(
    request: Request, status: int, detail: str, *headers: tuple[bytes, bytes]
) -> None:
    """Answers in the app's place, or breaks off what it has begun; `end_of` waits for that."""
    server, request.out = request.out, nowhere
    loop = asyncio.get_running_loop()
    if request.start is None:
        request.start, body = problem(request, status, detail, *headers)
        request.answering = loop.create_task(_answer(server, request.start, body))
    else:
        request.answering = loop.create_future()
        request.answering.set_result(None)
        _abort(server)
    request.owner.finish(request)


async def end_of(request: Request, error: BaseException | None) -> None:
    """To be awaited at the end of the app's code for a request whose time was up before, with what
    the code raised: the answer that was given in its place stands.
    """
    if isinstance(error, asyncio.CancelledError):
        if request.task is not None:
            request.task.uncancel()
    elif error is not None:
        logger.error("the app failed after its time was up", exc_info=error)
    assert request.answering is not None
    await request.answering


def _has_not_begun(request: Request) -> bool:
    return request.start is None and request.answering is None


def _is_not_over(request: Request) -> bool:
    return not request.over and request.answering is None


async def _answer(server: Send, *messages: Message) -> None:
    for message in messages:
        await server(message)


def _abort(server: Send) -> None:
    """Breaks the connection of Uvicorn's request cycle off: an end in good order could be taken for
    that of the body.
    """
    transport = getattr(getattr(server, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
