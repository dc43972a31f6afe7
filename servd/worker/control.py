"""Carries out the daemon's requests to a running worker."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from servd.http.tls import load_pair
from servd.wire.worker_spec import TlsSpec
from servd.worker.channel import Channel
from servd.worker.events import set_log_level

if TYPE_CHECKING:
    from servd.worker.server import WorkerServer


@dataclass(eq=False)
class Control:
    """Carries out the daemon's requests, one line of JSON each, in the worker's loop.

    A request has a number (`ask`) and a `do`; the answer has the number and an error, or "".
    """

    server: WorkerServer
    context: ssl.SSLContext | None
    channel: Channel
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def begin(self, line: str) -> None:
        """Handles a message in a task of the running loop, and holds the task until it is done."""
        task = asyncio.get_running_loop().create_task(self._handle(line))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, line: str) -> None:
        message = json.loads(line)
        error = ""
        try:
            match message["do"]:
                case "accept":
                    await self.server.accept()
                case "hurry":
                    self.server.force_stop()
                case "probe":
                    await self.server.probe(socket.socket(fileno=self.channel.descriptor()))
                case "adjust":
                    set_log_level(message["log_level"])
                    self.server.adjust(
                        message["health_path"], message["watchdog"], message["oom_limit"]
                    )
                case "tls":
                    if self.context is not None:
                        load_pair(self.context, TlsSpec(**message["tls"]))
                case unknown:
                    raise KeyError(unknown)
        except (OSError, ValueError) as failure:  # ssl.SSLError is an OSError
            error = str(failure) or type(failure).__name__
        self.channel.send(answer=message["ask"], error=error)
