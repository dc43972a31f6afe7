"""Clients of workers that have one place each: as many clients as workers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Mapping

WORK_SECONDS = 0.05
APP = f"""
import asyncio
import os
import time

async def app(scope, receive, send):
    assert scope["type"] == "http"
    began = time.monotonic()
    await asyncio.sleep({WORK_SECONDS})
    headers = [(b"content-length", b"8"), (b"x-began", b"%.6f" % began)]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": b"%8d" % os.getpid()}})
"""
WAITED_SECONDS = 0.01
"""A request that the app got later than this has waited; sooner, the machine was slow."""


async def asked(port: int, clients: int, seconds: float) -> Mapping[str, float]:
    """Percent of requests that were refused or waited; a place was free for each of them."""
    count = refused = waited = 0
    end = time.monotonic() + seconds
    rng = random.Random(0)

    async def client() -> None:
        nonlocal count, refused, waited
        while time.monotonic() < end:
            sent = time.monotonic()
            began = await _began(port)
            count += 1
            refused += began is None
            waited += began is not None and began - sent > WAITED_SECONDS
            await asyncio.sleep(rng.uniform(0.005, 0.05))

    await asyncio.gather(*(client() for _ in range(clients)))
    return {"refused": 100 * refused / count, "waited": 100 * waited / count, "asked": count}


async def _began(port: int) -> float | None:
    """When the app got a request on a new connection (the clock is of the machine), if it did."""
    with contextlib.suppress(OSError, EOFError):
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                found = re.search(rb"(?i)\r\nx-began: *([\d.]+)", answer)
                return float(found[1]) if found else None
            finally:
                writer.close()
    return None
