"""Unix sockets in a replica that lead to other services over handles, for clients that know
addresses alone, such as BentoML's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import tempfile
import threading
from typing import Any

import httpx

from servd.engines.ray.transport import STREAM, handle_of

logger = logging.getLogger("servd.worker")

_BAD_GATEWAY = 502


class Bridge:
    """A socket that leads to one service, served by a thread of its own for as long as the replica
    lives: what the app does in its loop delays nobody.
    """

    def __init__(self, service: str) -> None:
        import uvicorn

        self.service = service
        self.path = os.path.join(tempfile.mkdtemp(prefix="servd-"), "s.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        listener.listen()
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,
            log_config=None,
            access_log=False,
        )
        server = uvicorn.Server(config)
        threading.Thread(target=server.run, args=([listener],), daemon=True).start()

    @property
    def address(self) -> str:
        """Its address, as BentoML spells it."""
        return f"file://{self.path}"

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        call = (scope["method"], _target(scope), scope["headers"], await _body(receive))
        begun = False
        response: Any = None
        try:
            response = handle_of(self.service, STREAM).remote(call)
            async for part in response:
                if not begun:
                    begun = True
                    start = {"status": part[0], "headers": part[1]}
                    await send({"type": "http.response.start", **start})
                else:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except Exception as error:
            if begun:
                raise  # the client sees an answer that is cut short
            reason = error if isinstance(error, httpx.ConnectError) else type(error).__name__
            logger.warning("%s does not answer: %s", self.service, reason)
            await send({"type": "http.response.start", "status": _BAD_GATEWAY, "headers": []})
        except asyncio.CancelledError:
            if response is not None:
                response.cancel()
            raise
        await send({"type": "http.response.body", "body": b""})


def _target(scope: Any) -> bytes:
    query = scope["query_string"]
    path: bytes = scope["raw_path"]
    return path + b"?" + query if query else path


async def _body(receive: Any) -> bytes:
    pieces: list[bytes] = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)
