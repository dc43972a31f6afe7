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
_EXPLAINS_SECONDS = 1.0
_BODILESS = frozenset({204, 304})
_MOST_HEADERS = 200
_STATUS_DIGITS = 3
_LAST_CHUNK = b"0\r\n\r\n"


class WorkerAnswer(NamedTuple):
    """The status of an answer, and the beginning of its body as one line of text."""

    status: int
    beginning: str


@contextlib.asynccontextmanager
async def closing(connecting: Awaitable[Connection]) -> AsyncIterator[Connection]:
    """Makes a connection, and ends it afterwards: what the other side has not read is dropped, for
    it may never read it.
    """
    reader, writer = await connecting
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def exchange(connection: Connection, request: bytes, most: int | None = None) -> WorkerAnswer:
    """Sends a request and reads its answer to the end, or `most` bytes of it; of one that is not
    2xx only the beginning. Raises OSError, and ValueError when the answer is not HTTP or is cut
    short.
    """
    reader, writer = connection
    # an answer may come before all is read: reading it must not wait for that
    writer.write(request)
    head = await _head(reader)
    while 100 <= head.status < 200:  # such as 103, early hints: the answer follows
        head = await _head(reader)
    if head.status in _BODILESS or request.startswith(b"HEAD "):
        return WorkerAnswer(head.status, "")
    if 200 <= head.status < 300:
        beginning = await _body(reader, head, most)
    else:
        beginning = await _beginning(reader)
    text = beginning.decode(errors="replace")
    return WorkerAnswer(head.status, visible(" ".join(text.split())))


async def status_of(connection: Connection, request: bytes) -> int:
    """Sends a request; returns the status of the answer, without awaiting more of it. Raises as
    `exchange` does.
    """
    reader, writer = connection
    writer.write(request)
    status = await _status(reader)
    while 100 <= status < 200:
        await _head_after(reader, status)
        status = await _status(reader)
    return status


class _Head(NamedTuple):
    """The head of an answer. `length`: of the body; None: it ends with the connection."""

    status: int
    length: int | None
    is_chunked: bool


async def _head(reader: asyncio.StreamReader) -> _Head:
    return await _head_after(reader, await _status(reader))


async def _status(reader: asyncio.StreamReader) -> int:
    line = await reader.readline()
    words = line.split()
    digits = words[1] if len(words) > 1 else b""
    is_http = line.startswith(b"HTTP/") and line.endswith(b"\n")
    if not (is_http and digits.isdigit() and len(digits) == _STATUS_DIGITS):
        raise ValueError("the response is not HTTP" if line else "the connection was closed")
    return int(digits)


async def _head_after(reader: asyncio.StreamReader, status: int) -> _Head:
    length, is_chunked = None, False
    for _ in range(_MOST_HEADERS):
        line = await reader.readline()
        name, _, value = line.partition(b":")
        if not line:
            break
        if not line.strip():
            return _Head(status, None if is_chunked else length, is_chunked)
        if name.lower() == b"content-length" and value.strip().isdigit():
            length = int(value.strip()[:18])
        elif name.lower() == b"transfer-encoding":
            is_chunked = value.strip().lower().endswith(b"chunked")
    raise ValueError("the response has no end of its headers")


async def _beginning(reader: asyncio.StreamReader) -> bytes:
    """Returns the beginning of a body that only explains a status: its end may never come."""
    found = b""
    with contextlib.suppress(OSError):  # TimeoutError is one
        async with asyncio.timeout(_EXPLAINS_SECONDS):
            while len(found) < _SHOWN_BYTES and (part := await reader.read(_SHOWN_BYTES)):
                found += part
    return found[:_SHOWN_BYTES]


async def _body(reader: asyncio.StreamReader, head: _Head, most: int | None) -> bytes:
    """Returns the beginning of the body, once its end is there."""
    total, beginning, tail = 0, b"", b""
    while total != head.length and not (head.is_chunked and tail == _LAST_CHUNK):
        if most is not None and total >= most:
            break
        left = _READ_BYTES if head.length is None else head.length - total
        part = await reader.read(min(left, _READ_BYTES))
        if not part:
            if head.is_chunked or head.length is not None:
                raise ValueError("the response was cut short")
            break
        total += len(part)
        beginning = (beginning + part)[:_SHOWN_BYTES]
        tail = (tail + part)[-len(_LAST_CHUNK) :]
    return beginning
