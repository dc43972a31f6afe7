"""One request and the beginning of its answer, whatever answers."""

from __future__ import annotations

import asyncio
import socket

import pytest

from servd.supervisor.health.exchange import WorkerAnswer, closing, exchange

from support.in_loop import in_loop


async def told(
    answer: bytes, request: bytes = b"GET / HTTP/1.1\r\n\r\n", *, ends: bool
) -> WorkerAnswer:
    """What is made of `answer`, of a server that closes its connection if it `ends`."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        theirs.sendall(answer)
        if ends:
            theirs.shutdown(socket.SHUT_WR)
        try:
            return await exchange((reader, writer), request)
        finally:
            writer.close()


@in_loop
async def test_an_answer_is_read_to_its_end() -> None:
    whole = b"HTTP/1.1 500 No\r\nA: b\r\n\r\n" + b"no \x1b[31m\n\nroom\xff" + b"!" * 100_000
    answer = await told(whole, ends=True)
    assert answer.status == 500
    assert answer.beginning.startswith("no \\x1b[31m room\ufffd!!!")
    assert len(answer.beginning) < 400


@in_loop
async def test_an_answer_that_is_no_success_needs_no_end() -> None:
    text = b"HTTP/1.1 503 No\r\n\r\nno room"
    assert await told(text, ends=False) == WorkerAnswer(503, "no room")
    text = b"HTTP/1.1 500 No\r\nContent-Length: 9999999\r\n\r\n" + b"!" * 1000
    assert await told(text, ends=False) == WorkerAnswer(500, 300 * "!")


@in_loop
async def test_an_answer_with_a_length_needs_no_end_of_the_connection() -> None:
    text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\nokmore"
    assert await told(text, ends=False) == WorkerAnswer(200, "ok")
    assert await told(b"HTTP/1.1 204 No\r\n\r\n", ends=False) == WorkerAnswer(204, "")
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert await told(head, b"HEAD / HTTP/1.1\r\n\r\n", ends=False) == WorkerAnswer(200, "")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "the connection was closed"),
        (b"HTTP/1.1 200", "the response is not HTTP"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the response is not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "the response is not HTTP"),
        (b"HTTP/1.1 \xb2 OK\r\n\r\n", "the response is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, "the response has no end of its headers"),
    ],
)
@in_loop
async def test_what_is_not_http_is_a_reason(answer: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        await told(answer, ends=True)


@in_loop
async def test_a_request_that_nobody_reads_ends_with_its_time() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        connecting = asyncio.open_unix_connection(sock=ours)
        request = b"POST / HTTP/1.1\r\n\r\n" + bytes(8_000_000)

        async def ask() -> None:
            async with asyncio.timeout(0.1), closing(connecting) as connection:
                await exchange(connection, request)

        asking = asyncio.ensure_future(ask())
        await asyncio.wait({asking}, timeout=20)
        assert asking.done()
        assert isinstance(asking.exception(), TimeoutError)
