"""Drains the connections of a Uvicorn server without losing a request.

Uvicorn closes idle connections immediately, which resets requests that are arriving. Here answers
say `Connection: close`, and idle connections reach their keep-alive timeout; where no other worker
of the service accepts, they are closed after a moment if nothing else is left. At the deadline,
WebSockets are closed with 1012, event streams are ended, other connections are aborted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from uvicorn.server import ServerState

from servd.worker.asgi.requests import Requests
from servd.worker.slow_clients import NOTHING

logger = logging.getLogger("servd.worker")

CLOSE = (b"connection", b"close")
DrainCounts = dict[str, int]
_MIN_POLL_SECONDS = 0.02
_MAX_POLL_SECONDS = 0.1
_GRACE_SECONDS = 1.0
"""A client that takes an idle connection again later than this may find it closed."""
_DISCONNECT_SECONDS = 0.2
"""Time for apps to end by themselves after their connection was closed."""
_CANCEL_SECONDS = 1.0
"""Time for cancelled tasks to end."""


@dataclass(eq=False)
class Drain:
    """The drain of one server: `begin` once, then `finish`.

    HTTP protocols of Uvicorn have a `cycle`; those of WebSockets do not, and their `shutdown()`
    closes with 1012 (service restart, RFC 6455, 7.4.1). `accepted` has the protocols of accepted
    connections: during its TLS handshake one has no transport, and Uvicorn does not count it.
    """

    state: ServerState
    accepted: WeakSet[Any]
    requests: Requests
    keep_alive: float
    report: Callable[[DrainCounts], None]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    is_last: Callable[[], bool] = lambda: False
    deadline: float = 0.0
    _idle: dict[Any, tuple[object, float]] = field(default_factory=dict)
    _forced: asyncio.Event = field(default_factory=asyncio.Event)
    _handshakes_until: float = 0.0

    def begin(self, seconds: float) -> None:
        """Announces the end on every connection that allows it. The drain may take `seconds`."""
        self.deadline = self.loop.time() + seconds
        self._handshakes_until = self.loop.time() + min(self.keep_alive, seconds)
        self.ask_to_close()
        for connection in list(self.state.connections):
            self._announce(connection)

    def ask_to_close(self) -> None:
        """Has each answer that begins say `Connection: close`."""
        if CLOSE not in self.state.default_headers:
            self.state.default_headers = [*self.state.default_headers, CLOSE]

    def _announce(self, connection: Any) -> None:
        if _is_websocket(connection):
            return
        cycle = connection.cycle
        if cycle is None:
            # no request yet: one may be arriving, or this is a browser's preconnect
            wait = max(0.0, min(self.keep_alive, self.deadline - self.loop.time()))
            self.loop.call_later(wait, self._close_unused, connection)
        elif not cycle.response_complete and not cycle.response_started:
            cycle.default_headers = [*cycle.default_headers, CLOSE]

    @staticmethod
    def _close_unused(connection: Any) -> None:
        if connection.cycle is None and not connection.transport.is_closing():
            connection.transport.close()

    def force_stop(self) -> None:
        """Moves the deadline to now."""
        self._forced.set()

    def counts(self) -> DrainCounts:
        """Returns how many of each kind the drain still waits for."""
        http: list[Any] = [c for c in self.state.connections if not _is_websocket(c)]
        busy = sum(c.cycle is not None and not c.cycle.response_complete for c in http)
        streams = len(self.requests.streams)
        found = {
            "request": busy - streams,
            "event stream": streams,
            "websocket": len(self.state.connections) - len(http),
            "idle connection": len(http) - busy,
            "handshake": self._handshakes(),
        }
        return {kind: count for kind, count in found.items() if count > 0}

    def _handshakes(self) -> int:
        if self.loop.time() >= self._handshakes_until:
            return 0
        return sum(protocol.transport is None for protocol in self.accepted)

    async def finish(self) -> bool:
        """Waits until everything has ended (True), or cuts the rest at the deadline (False)."""
        await asyncio.sleep(_MIN_POLL_SECONDS)  # for connections accepted in the last loop turn
        pause = _MIN_POLL_SECONDS
        reported: DrainCounts = {}
        # `given_up` are tasks whose code outlasts the answer
        while (
            self.state.connections or self._tasks() - self.requests.given_up or self._handshakes()
        ):
            counts = self.counts()
            if counts != reported:
                self.report(reported := counts)
            if counts.keys() == {"idle connection"} and self.is_last():
                self._close_idle()
            remaining = self.deadline - self.loop.time()
            if remaining <= 0 or self._forced.is_set():
                await self._cut()
                return False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._forced.wait(), min(pause, remaining))
            pause = min(pause * 1.5, _MAX_POLL_SECONDS)
        return True

    def _close_idle(self) -> None:
        """Closes what has been idle for a moment since its last answer, or since nothing else is
        left. A request that is arriving is awaited.
        """
        now, before = self.loop.time(), self._idle
        self._idle = {}
        connections: set[Any] = self.state.connections
        for connection in connections:
            if not _is_idle(connection):
                continue
            last, since = before.get(connection, (None, now))
            self._idle[connection] = connection.cycle, since if last is connection.cycle else now
        for connection, (_, since) in self._idle.items():
            if now - since >= _GRACE_SECONDS:
                connection.transport.close()

    def _tasks(self) -> set[asyncio.Task[None]]:
        """Those that run: one that was cancelled before it began is still among the server's."""
        return {task for task in self.state.tasks if not task.done()}

    async def _cut(self) -> None:
        """Closes connections, then ends tasks: Uvicorn would answer a cancelled task with 500."""
        counts = self.counts()
        await self.requests.end_streams()
        for connection in list(self.state.connections):
            if _is_websocket(connection):
                _end_websocket(connection)
            else:
                connection.transport.close()
        if cut := counts.get("request"):
            logger.warning("drain timeout: aborted %d requests", cut)
        await self._end_tasks(_DISCONNECT_SECONDS, cancel=False)
        await self._end_tasks(_CANCEL_SECONDS, cancel=True)
        for connection in list(self.state.connections):
            connection.transport.abort()

    async def _end_tasks(self, seconds: float, *, cancel: bool) -> None:
        tasks = self._tasks()
        for task in tasks if cancel else ():
            task.cancel(msg="drain timeout")
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)


def _end_websocket(connection: Any) -> None:
    """Closes a WebSocket with 1012. One that Uvicorn cannot end (its handshake was cut) is aborted:
    it must not keep the others from their end.
    """
    try:
        connection.shutdown()
    except Exception:
        connection.transport.abort()


def _is_idle(connection: Any) -> bool:
    awaited = connection.awaited
    return awaited is None or awaited.what == NOTHING


def _is_websocket(connection: Any) -> bool:
    return not hasattr(connection, "cycle")
