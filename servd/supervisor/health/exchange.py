"""One HTTP request over a connection of its own, and the beginning of its answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import NamedTuple

from servd.core.printable import visible

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_READ_BYTES = 65536
_SHOWN_BYTES = 300
_BODILESS = frozenset({204, 304})


class WorkerAnswer(NamedTuple):
    """The status of an answer, and the beginning of its body as one line of text."""

    status: int
    beginning: str


@contextlib.asynccontextmanager
async def closing(connecting: Awaitable[Connection]) -> AsyncIterator[Connection]:
    """Makes a connection, and closes it afterwards."""
    reader, writer = await connecting
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def exchange(connection: Connection, request: bytes) -> WorkerAnswer:
    """Sends a request and reads its answer to the end. Raises OSError, and ValueError when the
    answer is not HTTP.
    """
    reader, writer = connection
    writer.write(
        request
    )  # an answer may come before all is read: reading it must not wait for that
    status, length = await _head(reader)
    while 100 <= status < 200:
        status, length = await _head(reader)
    if status in _BODILESS or request.startswith(b"HEAD "):
        length = 0
    beginning = b""
    while length is None or length > 0:
        wanted = _READ_BYTES if length is None else min(length, _READ_BYTES)
        part = await reader.read(wanted)
        if not part:
            break
        beginning = (
            (beginning + part)[:_SHOWN_BYTES] if len(beginning) < _SHOWN_BYTES else beginning
        )
        length = None if length is None else length - len(part)
    text = beginning.decode(errors="replace")
    return WorkerAnswer(status, visible(" ".join(text.split())))


async def _head(reader: asyncio.StreamReader) -> tuple[int, int | None]:
    """Returns the status and the length of the body, None where it ends with the connection."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    except asyncio.IncompleteReadError as error:
        began = bool(error.partial)
        raise ValueError(
            "the response is not HTTP" if began else "the connection was closed"
        ) from None
    except asyncio.LimitOverrunError:
        raise ValueError("the response has no end of its headers") from None
    words = lines[0].split(b" ")
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise ValueError("the response is not HTTP")
    if len(words[1]) > 3:
        raise ValueError("the response is not HTTP")
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            return int(words[1]), int(value.strip()[:18])
    return int(words[1]), None
