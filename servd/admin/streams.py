"""Events and logs as server-sent events (the HTML standard, section 9.2)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Response

from servd.admin.problem import Problem, ProblemError, documented
from servd.core.quick_dataclass import dataclass
from servd.daemon.log.buffer import FOLLOW_PAUSE_SECONDS, Line, LogBuffer

if TYPE_CHECKING:
    from servd.daemon.view import DaemonView

MOST_STREAMS = 64
"""Clients that may follow at the same time."""

QUIET = 15.0
"""Seconds after which a comment keeps the connection to an idle client alive."""

_ID = re.compile(r"([0-9a-f]+)-([0-9]+)")
_GAP = {"event": "gap", "reason": "some lines are no longer available"}

_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "The value for Last-Event-ID."},
        "event": {"enum": ["message", "gap"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["data"],
}

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: the data of each is one line as JSON; its id is for"
        " Last-Event-ID. An event of type `gap` means that lines are missing.",
        "content": {"text/event-stream": {"schema": _EVENT}},
    },
    **documented(_422="Invalid", _503="Too many clients"),
}


@dataclass(frozen=True, slots=True)
class StreamQuery:
    """What a client wants to see."""

    follow: bool
    lines: int
    services: tuple[str, ...]
    last_id: str


def wish(
    follow: Annotated[bool, Query(description="Keep sending new lines.")] = True,
    lines: Annotated[int, Query(ge=0, le=10_000, description="How many past lines to send.")] = 100,
    service: Annotated[list[str] | None, Query(description="Only lines of these services.")] = None,
    last_event_id: Annotated[
        str, Header(description="Continue after this event instead of sending past lines.")
    ] = "",
) -> StreamQuery:
    """Returns what a request asks for."""
    return StreamQuery(follow, lines, tuple(service or ()), last_event_id)


Wished = Annotated[StreamQuery, Depends(wish)]


@dataclass
class Follower:
    """One client's position in a journal."""

    journal: LogBuffer
    boot: str
    wish: StreamQuery

    async def events(self) -> AsyncIterator[bytes]:
        """Yields chunks of server-sent events until all are sent or the daemon stops."""
        position, chunk = self._past()
        yield chunk
        loop = asyncio.get_running_loop()
        said = loop.time()
        while True:
            newest = self.journal.newest  # what comes while we look is for the next time
            lines, gap = self.journal.after(position, self.wish.services)
            if gap:
                yield self._gap()
            if lines:
                position = lines[-1].number
                yield self._shown(lines)
                said = loop.time()
            elif self.journal.closed or not self.wish.follow:
                return
            else:
                position = max(position, newest)
                if loop.time() - said >= QUIET:
                    yield b":\n\n"
                    said = loop.time()
                await self.journal.more(position, QUIET)
            if self.wish.follow:
                await asyncio.sleep(FOLLOW_PAUSE_SECONDS)  # however much is written

    def _past(self) -> tuple[int, bytes]:
        """Returns the position to continue from, and the first chunk."""
        newest = self.journal.newest
        found = _ID.fullmatch(self.wish.last_id.strip())
        if found is not None and found[1] == self.boot and int(found[2]) <= newest:
            return int(found[2]), b": welcome back\n\n"
        lines = self.journal.tail(self.wish.lines, self.wish.services)
        begin = self._gap() if self.wish.last_id else b": welcome\n\n"
        return max(newest, lines[-1].number if lines else 0), begin + self._shown(lines)

    def _shown(self, lines: Iterable[Line]) -> bytes:
        """Renders lines. Only a program's own output can contain an end of line."""
        boot = self.boot.encode()
        return b"".join(
            b"id: %s-%d\ndata: %s\n\n" % (boot, line.number, line.text.replace(b"\r", b" "))
            for line in lines
        )

    def _gap(self) -> bytes:
        return b"event: gap\ndata: %s\n\n" % json.dumps(_GAP).encode()


class EventStream(Response):
    """Sends what a follower has, as fast as the client takes it and no faster."""

    media_type = "text/event-stream"

    def __init__(self, follower: Follower, streams: set[object]) -> None:
        super().__init__(headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self.follower = follower
        self.streams = streams

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Ends with the client, or with the daemon."""
        self.streams.add(self)
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        both: set[asyncio.Future[None]] = {sending, leaving}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.streams.discard(self)
            for task in both:
                task.cancel()
            await asyncio.wait(both)

    async def _send(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for chunk in self.follower.events():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def streaming(app: FastAPI, daemon: DaemonView) -> None:
    """The routes that can be followed."""
    streams: set[object] = set()

    def stream(journal: LogBuffer, wish: StreamQuery) -> Response:
        if len(streams) >= MOST_STREAMS:
            title = f"{MOST_STREAMS} clients already receive events"
            raise ProblemError(Problem(title=title, status=503))
        return EventStream(Follower(journal, daemon.router.boot, wish), streams)

    @app.get(
        "/v1/events",
        summary="Events of services, workers and reloads",
        response_class=Response,
        responses=_ANSWERS,
    )
    async def events(wish: Wished) -> Response:
        return stream(daemon.router.events, wish)

    @app.get(
        "/v1/logs",
        summary="The log: events, requests and program output",
        response_class=Response,
        responses=_ANSWERS,
    )
    async def logs(wish: Wished) -> Response:
        return stream(daemon.router.logs, wish)
