"""One HTTP request of a probe, and its answer, of which no more is read than shows its health."""

from __future__ import annotations

import asyncio

from servd.config.http_file import RequestFile
from servd.plan.model import HealthPlan

_MOST_HEADERS = 200
_READ_BYTES = 65536
_MOST_BYTES = 2**20
"""What has sent so much of an answer can do its work: the rest is not awaited."""

_LAST_CHUNK = b"0\r\n\r\n"


def is_expected(status: int, expect: str) -> bool:
    """Whether a status is healthy: `expect` is such as "200" or "2xx", "" for 2xx and 3xx."""
    if not expect:
        return 200 <= status < 400
    return str(status) == expect or expect == f"{status // 100}xx"


async def status_of(
    plan: HealthPlan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> int:
    """Sends the request of `plan`; returns the status of the answer, once it is whole if the plan
    has a real request. Raises OSError, and ValueError for what is not HTTP or is cut short.
    """
    request = plan.request or RequestFile("GET", _on_the_wire(plan.path))
    writer.write(request.encoded(_on_the_wire(plan.host)))
    is_awaited = plan.request is not None
    status, length, is_chunked = 100, None, False
    while 100 <= status < 200:  # such as 103, early hints: the answer follows
        status = await _status_line(reader)
        if is_awaited or status < 200:
            length, is_chunked = await _headers(reader)
    if is_awaited and request.method != "HEAD" and status not in (204, 304):
        await _read_body(reader, length, is_chunked=is_chunked)
    return status


def _on_the_wire(text: str) -> str:
    """Text that the configuration has as UTF-8, as characters of bytes."""
    return text.encode().decode("latin-1")


async def _status_line(reader: asyncio.StreamReader) -> int:
    line = await reader.readline()
    words = line.split(b" ")
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].strip().isdigit():
        raise ValueError("the response is not HTTP" if line else "the connection was closed")
    return int(words[1])


async def _headers(reader: asyncio.StreamReader) -> tuple[int | None, bool]:
    """The length of the body (None: up to the end of the connection), and whether it is chunked."""
    length, is_chunked = None, False
    for _ in range(_MOST_HEADERS):
        line = await reader.readline()
        name, _, value = line.partition(b":")
        if not line.strip():
            return length, is_chunked
        if name.lower() == b"content-length" and value.strip().isdigit():
            length = int(value)
        elif name.lower() == b"transfer-encoding":
            is_chunked = value.strip().lower().endswith(b"chunked")
    raise ValueError("the response has too many headers")


async def _read_body(reader: asyncio.StreamReader, length: int | None, *, is_chunked: bool) -> None:
    """Reads to the end of the body. Raises ValueError when the connection ends before."""
    total, tail = 0, b""
    while total < _MOST_BYTES and total != length and not (is_chunked and tail == _LAST_CHUNK):
        part = await reader.read(_READ_BYTES)
        if not part:
            if is_chunked or length is not None:
                raise ValueError("the response was cut short")
            return
        total += len(part)
        tail = (tail + part)[-len(_LAST_CHUNK) :]
