"""Ending the connections of a Uvicorn server without losing a request.

Uvicorn closes idle connections at once at shutdown, so that a request which is just arriving meets
a reset. Here every answer says `Connection: close` from the start of the drain on, idle connections
run into their keep-alive timeout, and only the deadline cuts: WebSockets are closed with 1012,
event streams ended, and the rest is broken off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from uvicorn.server import ServerState

from servd.worker.asgi.requests import Requests

logger = logging.getLogger("servd.worker")

CLOSE = (b"connection", b"close")
DrainCounts = dict[str, int]
_POLL = 0.02
_LONGEST_POLL = 0.1
_LAST_WORDS = 0.2
"""Seconds for apps to end by themselves once their connection was ended."""


class Drain:
    """The drain of one server: begin once, then wait until nothing is left.

    Uvicorn's protocols (httptools and h11 alike) share `cycle`, `cycle.default_headers` and
    `cycle.response_started`; WebSocket protocols have none of them and know `shutdown()`, which
    closes with 1012 (service restart, RFC 6455 section 7.4.1 registry). `accepted` are the
    protocols of connections whose TLS handshake may still be under way: those have no transport,
    and Uvicorn does not count them yet.
    """

    def __init__(
        self,
        state: ServerState,
        accepted: WeakSet[Any],
        requests: Requests,
        keep_alive: float,
        report: Callable[[DrainCounts], None],
    ) -> None:
        self.state = state
        self.accepted = accepted
        self.requests = requests
        self.keep_alive = keep_alive
        self.report = report
        self.loop = asyncio.get_running_loop()
        self._hurry = asyncio.Event()
        self._handshakes_until = 0.0

    def begin(self, seconds: float) -> None:
        """Tells every connection, as far as it can still be told. `seconds` is the longest time
        that the drain may take.
        """
        self.deadline = self.loop.time() + seconds
        self._handshakes_until = self.loop.time() + min(self.keep_alive, seconds)
        if CLOSE not in self.state.default_headers:
            self.state.default_headers = [*self.state.default_headers, CLOSE]
        for connection in list(self.state.connections):
            self._tell(connection)

    def _tell(self, connection: Any) -> None:
        if _is_websocket(connection):
            return
        cycle = connection.cycle
        if cycle is None:
            # accepted, nothing sent: perhaps a request on its way, perhaps a browser's preconnect
            wait = max(0.0, min(self.keep_alive, self.deadline - self.loop.time()))
            self.loop.call_later(wait, self._close_unused, connection)
        elif not cycle.response_complete and not cycle.response_started:
            cycle.default_headers = [*cycle.default_headers, CLOSE]

    @staticmethod
    def _close_unused(connection: Any) -> None:
        if connection.cycle is None and not connection.transport.is_closing():
            connection.transport.close()

    def hurry(self) -> None:
        """The deadline is now."""
        self._hurry.set()

    def counts(self) -> DrainCounts:
        """What the drain still waits for, by its kind."""
        websockets = sum(_is_websocket(c) for c in self.state.connections)
        busy = [c for c in self.state.connections if not _is_websocket(c) and _is_busy(c)]
        streams = len(self.requests.streams)
        found = {
            "request": len(busy) - streams,
            "event stream": streams,
            "websocket": websockets,
            "idle connection": len(self.state.connections) - websockets - len(busy),
            "handshake": self._handshakes(),
        }
        return {kind: count for kind, count in found.items() if count > 0}

    def _tasks(self) -> set[asyncio.Task[None]]:
        """Requests that somebody waits for: not those that have their answer, though the app's
        code goes on.
        """
        return self.state.tasks - self.requests.given_up

    def _handshakes(self) -> int:
        if self.loop.time() >= self._handshakes_until:
            return 0
        return sum(protocol.transport is None for protocol in self.accepted)

    async def finish(self) -> bool:
        """Waits until no connection and no request is left, at most until the deadline.

        Returns whether everything ended by itself; if not, the rest has been ended.
        """
        await asyncio.sleep(_POLL)  # for what was accepted in the very last turn of the loop
        pause = _POLL
        reported: DrainCounts = {}
        while self.state.connections or self._tasks() or self._handshakes():
            counts = self.counts()
            if counts != reported:
                self.report(counts)
                reported = counts
            left = self.deadline - self.loop.time()
            if left <= 0 or self._hurry.is_set():
                await self._cut()
                return False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), min(pause, left))
            pause = min(pause * 1.5, _LONGEST_POLL)
        return True

    async def _cut(self) -> None:
        """Ends what is left: connections first, so that no answer is made up for a request that
        is cut (Uvicorn would send a 500 for a cancelled task).
        """
        counts = self.counts()
        await self.requests.end_streams()
        for connection in list(self.state.connections):
            if _is_websocket(connection):
                connection.shutdown()
            else:
                connection.transport.close()
        if counts.get("request"):
            logger.warning(
                "the drain's deadline has passed: %d requests are cut", counts["request"]
            )
        await self._end_tasks(_LAST_WORDS, cancel=False)
        await self._end_tasks(1.0, cancel=True)
        for connection in list(self.state.connections):
            connection.transport.abort()

    async def _end_tasks(self, seconds: float, *, cancel: bool) -> None:
        tasks = list(self.state.tasks)
        for task in tasks if cancel else ():
            task.cancel(msg="the drain's deadline has passed")
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)


def _is_websocket(connection: Any) -> bool:
    return not hasattr(connection, "cycle")


def _is_busy(connection: Any) -> bool:
    """Whether a request of an HTTP connection is being answered."""
    return connection.cycle is not None and not connection.cycle.response_complete
