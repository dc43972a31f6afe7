"""Ending the connections of a Uvicorn server without losing a request.

Uvicorn closes idle connections at once at shutdown, so that a request which is just arriving meets
a reset. Here every answer says `Connection: close` from the start of the drain on, idle connections
run into their keep-alive timeout, and only the deadline cuts.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn.server import ServerState

logger = logging.getLogger("servd.worker")

CLOSE = (b"connection", b"close")
_POLL = 0.02
_LONGEST_POLL = 0.1


class Drain:
    """The drain of one server: begin once, then wait until nothing is left.

    Uvicorn's protocols (httptools and h11 alike) share `cycle`, `cycle.default_headers` and
    `cycle.response_started`; WebSocket protocols have none of them and know `shutdown()`, which
    closes with 1012 (service restart, RFC 6455 section 7.4.1 registry).
    """

    def __init__(self, state: ServerState, keep_alive: float, deadline: float) -> None:
        self.state = state
        self.keep_alive = keep_alive
        self.deadline = deadline
        self.loop = asyncio.get_running_loop()

    def begin(self) -> None:
        """Tells every connection, as far as it can still be told."""
        if CLOSE not in self.state.default_headers:
            self.state.default_headers = [*self.state.default_headers, CLOSE]
        for connection in list(self.state.connections):
            self._tell(connection)

    def _tell(self, connection: Any) -> None:
        if not hasattr(connection, "cycle"):
            connection.shutdown()
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

    async def finish(self) -> bool:
        """Waits until no connection and no request is left, at most until the deadline.

        Returns whether everything ended by itself; if not, the rest has been cancelled and cut.
        """
        await asyncio.sleep(_POLL)  # for what was accepted in the very last turn of the loop
        pause = _POLL
        while self.state.connections or self.state.tasks:
            left = self.deadline - self.loop.time()
            if left <= 0:
                await self._cut()
                return False
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_POLL)
        return True

    async def _cut(self) -> None:
        """Ends what is left: connections first, so that no answer is made up for a request that
        is cut (Uvicorn would send a 500 for a cancelled task).
        """
        tasks = list(self.state.tasks)
        logger.warning("the drain's deadline has passed: %d requests are cut", len(tasks))
        for connection in list(self.state.connections):
            connection.transport.close()
        await asyncio.sleep(0.01)  # connection_lost is a turn or two of the loop away
        for task in tasks:
            task.cancel(msg="the drain's deadline has passed")
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        for connection in list(self.state.connections):
            connection.transport.abort()
