"""An answer to a client that is still sending, which it can read (RFC 9112, 9.6)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from servd.worker.asgi.request import Message, Send

LINGER_SECONDS = 2.0
"""Time limit for what a client keeps sending: a client that reads stops earlier."""


async def answer_and_linger(
    send: Send, receive: Any, messages: tuple[Message, Message], answered: Callable[[], None]
) -> None:
    """Sends the start and the whole body of an answer, calls `answered`, and reads what the client
    still sends before the connection is closed: closing it with unread data resets it, and the
    answer is lost on its way.
    """
    start, body = messages
    await send(start)
    await send({**body, "more_body": True})
    answered()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            await _read_all(receive)
    await send({"type": "http.response.body", "body": b""})


async def _read_all(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive()).get("more_body", False):
        pass
