"""WebSockets, event streams, uploads and downloads pass through everything as they are, at no cost
in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
import websockets

from support.harness import Servd, ServdProcess

APP = """
    import asyncio, hashlib

    state = {}

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["begun"] = "yes"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await echo(receive, send)
        elif scope["path"] == "/state":
            await answer(send, scope["state"]["begun"].encode())
        elif scope["path"] == "/events":
            await events(send)
        elif scope["path"] == "/upload":
            await upload(receive, send)
        else:
            await download(send, int(scope["query_string"]))

    async def answer(send, body):
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})

    async def echo(receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", **{k: message[k] for k in ("text", "bytes")
                                                    if message.get(k) is not None}})

    async def events(send):
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(5):
            data = f"data: {number}\\n\\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
            await asyncio.sleep(0.2)
        await send({"type": "http.response.body", "body": b""})

    async def upload(receive, send):
        digest, more = hashlib.sha1(), True
        while more:
            message = await receive()
            digest.update(message["body"])
            more = message["more_body"]
        await answer(send, digest.hexdigest().encode())

    async def download(send, size):
        part = bytes(range(256)) * 256
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", str(size).encode())]})
        while size:
            size -= len(part)
            await send({"type": "http.response.body", "body": part, "more_body": size > 0})
"""

MIB = 1024 * 1024
PART = bytes(range(256)) * 256


@pytest.fixture
def daemon(servd: Servd) -> ServdProcess:
    """Everything that servd does around a request, for one worker."""
    return servd(
        """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        timeouts = { request = "1h" }
        limits = { concurrency = 10, queue = 10, max_requests = 1000 }
        """,
        main_py=APP,
    ).ready()


def memory(daemon: ServdProcess) -> int:
    (process,) = daemon.service("web")["processes"]
    return int(process["rss_bytes"])


def test_the_lifespan_and_its_state_reach_the_app(daemon: ServdProcess) -> None:
    assert daemon.get("web", "/state").text == "yes"


def test_a_websocket_echoes_text_and_bytes(daemon: ServdProcess) -> None:
    async def talk() -> None:
        url = daemon.url("web").replace("http", "ws")
        async with websockets.connect(url, max_size=None) as connection:
            for message in ("hello", b"\0\xff" * 1000, "x" * MIB):
                await connection.send(message)
                assert await connection.recv() == message
            name = "servd_websockets_open"
            assert await asyncio.to_thread(lambda: daemon.metric(name, service="web")) == 1

    asyncio.run(talk())


def test_events_arrive_one_by_one_when_they_are_sent(daemon: ServdProcess) -> None:
    with httpx.stream("GET", daemon.url("web") + "/events") as answer:
        came = [(line, time.monotonic()) for line in answer.iter_lines() if line]
    assert [line for line, _ in came] == [f"data: {number}" for number in range(5)]
    assert came[-1][1] - came[0][1] > 0.5


def body(size: int) -> Iterator[bytes]:
    while size:
        yield PART
        size -= len(PART)


def passes_unchanged(daemon: ServdProcess, size: int) -> None:
    """An upload and a download of `size` bytes."""
    url = daemon.url("web")
    httpx.post(url + "/upload", content=body(4 * MIB), timeout=60)
    before = memory(daemon)
    expected = hashlib.sha1()
    for part in body(size):
        expected.update(part)
    answer = httpx.post(url + "/upload", content=body(size), timeout=300)
    assert answer.text == expected.hexdigest()
    received, read = hashlib.sha1(), 0
    with httpx.stream("GET", f"{url}/download?{size}", timeout=300) as stream:
        for part in stream.iter_raw():
            received.update(part)
            read += len(part)
    assert (read, received.hexdigest()) == (size, expected.hexdigest())
    grown = memory(daemon) - before
    print(f"{size // MIB} MiB up and down: {grown / MIB:+.1f} MiB")
    assert grown < 8 * MIB


def test_an_upload_and_a_download_pass_unchanged_without_growth(daemon: ServdProcess) -> None:
    passes_unchanged(daemon, 64 * MIB)


@pytest.mark.slow
def test_a_gibibyte_up_and_down_passes_unchanged_without_growth(daemon: ServdProcess) -> None:
    passes_unchanged(daemon, 1024 * MIB)


def test_a_slow_reader_does_not_make_the_worker_grow(daemon: ServdProcess) -> None:
    place = urlsplit(daemon.url("web"))
    before = memory(daemon)
    with socket.create_connection((place.hostname, place.port)) as client:
        client.sendall(f"GET /download?{256 * MIB} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.recv(1000)
        for _ in range(20):
            daemon.get("web", "/state")  # others are served meanwhile
        assert memory(daemon) - before < 8 * MIB
