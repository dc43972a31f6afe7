"""One service of its own: models, errors, headers, an app and a WebSocket beside it."""

from __future__ import annotations

import bentoml
import numpy as np
from bentoml.exceptions import NotFound
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket


class Summary(BaseModel):
    words: int = Field(ge=0)
    longest: str


async def hello(_: object) -> PlainTextResponse:
    return PlainTextResponse("hello from the app beside it")


async def shout(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())


beside = Starlette(routes=[Route("/hello", hello), WebSocketRoute("/shout", shout)])


@bentoml.service(
    traffic={"timeout": 1.5, "max_concurrency": 50},
    http={"cors": {"enabled": True, "access_control_allow_origins": ["https://example.org"]}},
)
@bentoml.asgi_app(beside, path="/beside")
class Summariser:
    @bentoml.api
    def summarise(self, text: str) -> Summary:
        words = text.split()
        return Summary(words=len(words), longest=max(words, key=len))

    @bentoml.api
    async def mean(self, values: np.ndarray) -> float:
        return float(values.mean())

    @bentoml.api(batchable=True)
    def square(self, values: np.ndarray) -> np.ndarray:
        return values * values

    @bentoml.api
    def find(self, name: str) -> str:
        raise NotFound(f"there is no {name}")

    @bentoml.api
    def fail(self) -> str:
        raise RuntimeError("nobody shall see this")

    @bentoml.api
    async def marked(self, ctx: bentoml.Context) -> str:
        ctx.response.headers["x-mark"] = "yes"
        ctx.response.status_code = 202
        return "marked"

    @bentoml.api
    async def slow(self) -> str:
        import asyncio

        await asyncio.sleep(30)
        return "too late"
