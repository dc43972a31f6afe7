"""A probe sends a real request, and reads as much of the answer as shows that the app works."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from servd.config.http_file import RequestFile
from servd.core.address import Address
from servd.plan.model import HealthPlan
from servd.supervisor.health.probe import is_expected, why_unreachable

from support.in_loop import in_loop

PLAN = HealthPlan(None, "/generate", "localhost", interval=9.0, timeout=5.0, failures=3)
BODY = '{"prompt": "é"}'.encode()
GENERATE = RequestFile("POST", "/generate?key=secret", (("A", "b"),), BODY, is_json=True)
REAL = replace(PLAN, request=GENERATE)


@contextlib.asynccontextmanager
async def answering(
    answer: bytes, *, then_open: bool = False
) -> AsyncIterator[tuple[Address, list[bytes]]]:
    """A server that notes the request, answers, and closes the connection unless `then_open`."""
    asked: list[bytes] = []
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        body = await reader.readexactly(int(found[0].split(b":")[1])) if found else b""
        asked.append(head + body)
        writer.write(answer)
        if then_open:
            await release.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Address("tcp", host="127.0.0.1", port=port), asked
    finally:
        release.set()
        server.close()


@in_loop
async def test_a_real_request_has_its_method_its_length_and_its_body() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as (address, asked):
        assert await why_unreachable(replace(REAL, address=address)) == ""
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /generate?key=secret HTTP/1.1",
        b"A: b",
        b"Host: localhost",
        b"User-Agent: servd",
        b"Content-Type: application/json",
        b"Content-Length: 16",
        b"Connection: close",
    ]
    assert body == BODY


@in_loop
async def test_a_plain_probe_needs_no_more_than_the_status() -> None:
    unending = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"
    async with answering(unending, then_open=True) as (address, _):
        assert await why_unreachable(replace(PLAN, address=address)) == ""


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 1_100_000,
    ],
)
def test_the_end_of_an_answer_is_known_while_its_connection_stays_open(answer: bytes) -> None:
    @in_loop
    async def test() -> None:
        async with answering(answer, then_open=True) as (address, _):
            assert await why_unreachable(replace(REAL, address=address)) == ""

    test()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nall of it", ""),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart",
            "POST /generate failed: the response was cut short",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
            "POST /generate failed: the response was cut short",
        ),
        (
            b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
            "POST /generate returned 500",
        ),
        (
            b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n",
            "POST /generate failed: the response has no end of its headers",
        ),
        (b"", "POST /generate failed: the connection was closed"),
        (b"SSH-2.0\r\n", "POST /generate failed: the response is not HTTP"),
    ],
)
def test_an_answer_that_ends_with_its_connection(answer: bytes, reason: str) -> None:
    @in_loop
    async def test() -> None:
        async with answering(answer) as (address, _):
            assert await why_unreachable(replace(REAL, address=address)) == reason

    test()


@in_loop
async def test_an_answer_that_begins_but_does_not_end_is_none() -> None:
    begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"
    async with answering(begun, then_open=True) as (address, _):
        reason = await why_unreachable(replace(REAL, address=address, timeout=0.2))
    assert reason == "POST /generate was not answered within 0.2 s"


@in_loop
async def test_another_status_than_the_expected_one_is_said() -> None:
    async with answering(b"HTTP/1.1 204 No\r\n\r\n") as (address, _):
        reason = await why_unreachable(replace(PLAN, address=address, expect="200"))
    assert reason == "GET /generate returned 204, not 200"


@pytest.mark.parametrize(
    ("expect", "well", "unwell"),
    [
        ("", [200, 204, 302, 399], [199, 400, 500]),
        ("2xx", [200, 299], [199, 300, 404]),
        ("204", [204], [200, 404]),
        ("405", [405], [200]),
    ],
)
def test_what_is_expected(expect: str, well: list[int], unwell: list[int]) -> None:
    assert all(is_expected(status, expect) for status in well)
    assert not any(is_expected(status, expect) for status in unwell)
