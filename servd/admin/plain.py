"""Minimal ASGI responses that do not import FastAPI."""

from __future__ import annotations

from typing import Any


async def answer_plainly(
    send: Any, status: int, content_type: str, body: bytes, *more: tuple[bytes, bytes]
) -> None:
    """Sends one complete answer, with `more` headers."""
    headers = [
        (b"content-type", content_type.encode("latin-1")),
        (b"content-length", str(len(body)).encode()),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
