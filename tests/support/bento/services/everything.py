"""One of everything that may be under way while workers are replaced."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

import anyio
import bentoml
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


sockets = Starlette(routes=[WebSocketRoute("/echo", echo)])


@bentoml.service(workers=2, threads=8)
@bentoml.asgi_app(sockets, path="/sockets")
class Everything:
    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=10000)
    def double(self, numbers: list[int]) -> list[list[int]]:
        return [[2 * number, len(numbers)] for number in numbers]

    @bentoml.api
    async def count(self, upto: int) -> AsyncGenerator[str, None]:
        for number in range(upto):
            yield f"{number} "
            await anyio.sleep(0.05)

    @bentoml.task
    def spell(self, word: str, seconds: float) -> str:
        time.sleep(seconds)
        return word[::-1]
