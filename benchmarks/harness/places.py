"""Clients of workers that have one place each: as many clients as workers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping

WORK_SECONDS = 0.01
APP = f"""
import asyncio
import os

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await asyncio.sleep({WORK_SECONDS})
    said = b"%8d" % os.getpid()
    headers = [(b"content-length", b"8")]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": said}})
"""
WAITED = 1.5
"""A request that took so many times the work has waited for another."""


async def asked(port: int, clients: int, seconds: float) -> Mapping[str, float]:
    """Percent of requests that were refused or waited; a place was free for each of them."""
    took: list[float] = []
    refused = 0
    end = time.monotonic() + seconds
    rng = random.Random(0)

    async def client() -> None:
        nonlocal refused
        while time.monotonic() < end:
            began = time.monotonic()
            if await _status(port) == b"200":
                took.append(time.monotonic() - began)
            else:
                refused += 1
            await asyncio.sleep(rng.uniform(0.002, 0.02))

    await asyncio.gather(*(client() for _ in range(clients)))
    waited = sum(one > WAITED * WORK_SECONDS for one in took)
    count = len(took) + refused
    return {
        "refused": 100 * refused / count,
        "waited": 100 * waited / count,
        "asked": count,
    }


async def _status(port: int) -> bytes:
    """The status of an answer on a new connection; empty where there was none."""
    with contextlib.suppress(OSError, EOFError):
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.read()
                return head.split(b" ", 2)[1]
            finally:
                writer.close()
    return b""
