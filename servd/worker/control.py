"""Carries out the daemon's requests to a running worker."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from servd.http.tls import load_pair
from servd.wire.worker_spec import TlsSpec
from servd.worker.channel import Channel
from servd.worker.events import set_log_level

if TYPE_CHECKING:
    from servd.worker.server import WorkerServer


class Control:
    """Carries out the daemon's requests, one line of JSON each, in the worker's loop.

    A request has an `ask` (its number) and a `do`; the answer has the number and an error, which
    is empty on success.
    """

    def __init__(
        self, server: WorkerServer, context: ssl.SSLContext | None, channel: Channel
    ) -> None:
        self.server = server
        self.context = context
        self.channel = channel
        self._tasks: set[asyncio.Task[None]] = set()
        self._actions: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "accept": self._accept,
            "hurry": self._force_stop,
            "probe": self._probe,
            "adjust": self._adjust,
            "tls": self._tls,
        }

    def begin(self, line: str) -> None:
        """Handles a message in a task of the running loop, and holds the task until it is done."""
        task = asyncio.get_running_loop().create_task(self._handle(line))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, line: str) -> None:
        message = json.loads(line)
        error = ""
        try:
            await self._actions[message["do"]](message)
        except (OSError, ValueError) as failure:  # ssl.SSLError is an OSError
            error = str(failure) or type(failure).__name__
        self.channel.send(answer=message["ask"], error=error)

    async def _accept(self, _: dict[str, Any]) -> None:
        await self.server.accept()

    async def _force_stop(self, _: dict[str, Any]) -> None:
        self.server.force_stop()

    async def _probe(self, _: dict[str, Any]) -> None:
        await self.server.probe(socket.socket(fileno=self.channel.descriptor()))

    async def _adjust(self, message: dict[str, Any]) -> None:
        set_log_level(message["log_level"])
        self.server.adjust(message["health_path"], message["watchdog"])

    async def _tls(self, message: dict[str, Any]) -> None:
        if self.context is not None:
            load_pair(self.context, TlsSpec(**message["tls"]))
