"""What the daemon may ask of a running worker, and the answers."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from servd.http.tls import load_pair
from servd.wire.worker_spec import TlsSpec
from servd.worker.channel import Channel
from servd.worker.events import set_log_level


class ControlledServer(Protocol):
    """What a request of the daemon acts on."""

    async def accept(self) -> None:
        """Begins to accept connections."""

    def hurry(self) -> None:
        """Ends a drain now."""

    async def probe(self, sock: socket.socket) -> None:
        """Answers on a private connection."""

    def adjust(self, health_path: str, watchdog: float | None) -> None:
        """Takes over what may change while it runs."""


@dataclass(frozen=True, slots=True)
class Control:
    """Carries out the daemon's requests, in the worker's loop, one line of JSON each.

    A request has an `ask` (its number) and a `do`; the answer has the number and an error, which
    is empty where it was done.
    """

    server: ControlledServer
    context: ssl.SSLContext | None
    channel: Channel

    async def handle(self, line: str) -> None:
        """Does what one message asks for, and answers."""
        message = json.loads(line)
        error = ""
        try:
            await self._actions[message["do"]](message)
        except (OSError, ValueError) as failure:  # ssl.SSLError is an OSError
            error = str(failure) or type(failure).__name__
        self.channel.send(answer=message["ask"], error=error)

    @property
    def _actions(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[None]]]:
        return {
            "accept": self._accept,
            "hurry": self._hurry,
            "probe": self._probe,
            "adjust": self._adjust,
            "tls": self._tls,
        }

    async def _accept(self, _: dict[str, Any]) -> None:
        await self.server.accept()

    async def _hurry(self, _: dict[str, Any]) -> None:
        self.server.hurry()

    async def _probe(self, _: dict[str, Any]) -> None:
        await self.server.probe(socket.socket(fileno=self.channel.descriptor()))

    async def _adjust(self, message: dict[str, Any]) -> None:
        set_log_level(message["log_level"])
        self.server.adjust(message["health_path"], message["watchdog"])

    async def _tls(self, message: dict[str, Any]) -> None:
        if self.context is not None:
            load_pair(self.context, TlsSpec(**message["tls"]))
