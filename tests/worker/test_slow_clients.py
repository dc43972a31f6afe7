"""Clients that send slowly, too much, or what two servers would read differently."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.sync.client import connect

from support.harness import DEADLINE, Servd, ServdProcess, wait_until

APP = """
    import asyncio

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await asyncio.sleep(6)
            await send({"type": "websocket.send", "text": "late"})
            await send({"type": "websocket.close"})
            return
        assert scope["type"] == "http"
        if scope["path"] == "/thinks":
            await asyncio.sleep(3)
        size, more = 0, scope["path"] != "/answers-first"
        if not more:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first ", "more_body": True})
            more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                print("the client has gone", flush=True)
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = str(size).encode()
        if scope["path"] != "/answers-first":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture(params=["httptools", "h11"])
def daemon(request: pytest.FixtureRequest, servd: Servd) -> ServdProcess:
    config = f"""
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        timeouts = {{ headers = "2s", body = "2s", keep_alive = "1m" }}
        limits = {{ head = "4KiB", body = "10KiB" }}
        uvicorn = {{ http = "{request.param}" }}
        log = {{ access = false }}
    """
    return servd(config, main_py=APP).ready()


@contextlib.contextmanager
def connected(daemon: ServdProcess) -> Iterator[socket.socket]:
    host, _, port = daemon.url("web").removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), DEADLINE) as client:
        yield client


def rest(client: socket.socket) -> bytes:
    """What comes until the server closes."""
    found = b""
    while chunk := client.recv(65536):
        found += chunk
    return found


def drip(client: socket.socket, text: Iterable[int], pause: float) -> None:
    """A byte at a time, as long as somebody listens."""
    with contextlib.suppress(OSError):
        for byte in text:
            client.sendall(bytes([byte]))
            time.sleep(pause)


def taken(client: socket.socket) -> None:
    """Returns when the server has read all that was sent to it, as the kernel has it."""
    mine, theirs = client.getsockname()[1], client.getpeername()[1]

    def unread() -> int | None:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            if (words[1][-4:], words[2][-4:]) == (f"{theirs:04X}", f"{mine:04X}"):
                return int(words[4].partition(":")[2], 16)
        return None

    wait_until(lambda: unread() == 0, "the server has read it")


HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"


def test_a_head_that_drips_is_ended_with_408(daemon: ServdProcess) -> None:
    with connected(daemon) as client:
        began = time.monotonic()
        dripping = threading.Thread(
            target=drip, args=(client, itertools.chain(HEAD, itertools.repeat(ord("x"))), 0.05)
        )
        dripping.start()
        answer = rest(client)  # the head itself has no end
        assert time.monotonic() - began > 1.9
        dripping.join()
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close" in answer


def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(
    daemon: ServdProcess,
) -> None:
    with connected(daemon) as client:
        assert rest(client) == b""


def test_a_body_that_pauses_is_ended_and_one_that_only_takes_long_is_not(
    daemon: ServdProcess,
) -> None:
    head = HEAD + b"content-length: 12\r\nconnection: close\r\n\r\n"
    with connected(daemon) as slow, connected(daemon) as stuck:
        stuck.sendall(head + b"abc")
        slow.sendall(head)
        drip(slow, b"abcdefghijkl", 0.2)
        assert rest(slow).endswith(b"\r\n12\r\n0\r\n\r\n")
        assert rest(stuck).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    wait_until(lambda: "the client has gone" in daemon.output, "the app has heard of it")


def test_an_answer_that_has_begun_is_cut_without_another_one(daemon: ServdProcess) -> None:
    head = HEAD.replace(b"/ ", b"/answers-first ") + b"content-length: 12\r\n\r\n"
    with connected(daemon) as client:
        client.sendall(head + b"abc")
        answer = rest(client)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"408" not in answer


def test_a_client_that_waits_for_the_server_has_time(daemon: ServdProcess) -> None:
    """An app that thinks, an idle kept connection, a client that asks first: 100-continue."""
    with httpx.Client() as client:
        url = daemon.url("web")
        assert client.post(url, content=b"x").text == "1"
        time.sleep(3)  # longer than a head may take: nothing has begun
        assert client.post(f"{url}/thinks", content=b"xy").text == "2"
    head = HEAD.replace(b"/ ", b"/thinks ") + b"content-length: 2\r\nexpect: 100-continue\r\n\r\n"
    with connected(daemon) as first:
        first.sendall(head)
        assert first.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        first.sendall(b"xy")
        assert b"200 OK" in first.recv(1000)


def test_a_websocket_is_no_request_that_comes_slowly(daemon: ServdProcess) -> None:
    with connect(daemon.url("web").replace("http", "ws"), open_timeout=DEADLINE) as client:
        assert client.recv() == "late"


def test_a_head_that_is_too_long_is_refused(daemon: ServdProcess) -> None:
    with connected(daemon) as client:
        with contextlib.suppress(OSError):
            for _ in range(40):
                client.sendall(
                    b"GET / HTTP/1.1\r\n" if _ == 0 else b"x-more: " + b"y" * 512 + b"\r\n"
                )
                time.sleep(0.001)
        with contextlib.suppress(ConnectionResetError):
            answer = rest(client)
            assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert httpx.get(daemon.url("web"), headers={"x-long": "y" * 3000}).status_code == 200


def test_a_body_that_is_too_large_is_refused(daemon: ServdProcess) -> None:
    url = daemon.url("web")
    refused = httpx.post(url, content=b"x" * 10_241)
    assert refused.status_code == 413
    assert refused.json()["detail"] == "the body exceeds the limit of this service"
    assert httpx.post(url, content=b"x" * 10_240).text == "10240"
    labels = {"service": "web", "reason": "body"}
    assert daemon.metric("servd_requests_rejected_total", **labels) == 1
    with connected(daemon) as client:
        client.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(30):
                client.sendall(b"200\r\n" + b"x" * 512 + b"\r\n")
                time.sleep(0.001)
        with contextlib.suppress(ConnectionResetError):
            assert rest(client).startswith(b"HTTP/1.1 413 ")
    wait_until(
        lambda: daemon.metric("servd_requests_rejected_total", **labels) == 2, "both are counted"
    )
    labels = {"service": "web", "method": "POST", "code": "413"}
    assert daemon.metric("servd_requests_total", **labels) == 2


def test_a_body_in_many_small_chunks_counts_by_its_bytes(daemon: ServdProcess) -> None:
    body = b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n"
    with connected(daemon) as client:
        head = HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        client.sendall(head + body)
        assert b"\r\n2000\r\n" in rest(client)


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: x", *lines, "", ""]).encode()


def test_pipelined_requests_are_answered_however_they_are_cut(daemon: ServdProcess) -> None:
    """Neither what came before an unfinished head counts for it, nor the time of answers."""
    last = get("/last", "connection: close")
    with connected(daemon) as client:
        client.sendall(get("/thinks") + get("/next") + last[:9])
        taken(client)
        client.sendall(last[9:])
        assert rest(client).count(b"HTTP/1.1 200 OK") == 3
    with connected(daemon) as client:
        upload = HEAD + b"content-length: 9000\r\n\r\n" + b"x" * 9000
        client.sendall(upload + last[:1])
        taken(client)
        client.sendall(last[1:])
        assert rest(client).count(b"HTTP/1.1 200 OK") == 2
    with connected(daemon) as client:
        sending = threading.Thread(target=client.sendall, args=(get("/many") * 1000 + last,))
        sending.start()
        assert rest(client).count(b"HTTP/1.1 200 OK") == 1001
        sending.join()


def test_an_open_websocket_leaves_the_others_to_their_time(daemon: ServdProcess) -> None:
    address = daemon.url("web").replace("http", "ws")
    with connect(address, open_timeout=DEADLINE):
        for _ in range(2):  # the first may be looked at together with the WebSocket's beginning
            with connected(daemon) as client:
                client.sendall(HEAD[:20])
                assert rest(client).startswith(b"HTTP/1.1 408")
    assert "AttributeError" not in daemon.output


def test_a_refusal_never_takes_the_place_of_an_answer_that_is_due(daemon: ServdProcess) -> None:
    chunks = b"transfer-encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 4096 + b"\r\n"
    for more in (
        HEAD + chunks + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 3,
        HEAD + b"x: y\r\n" * 900,
    ):
        with connected(daemon) as client:
            client.sendall(get("/thinks"))
            taken(client)
            client.sendall(more[:2000])
            taken(client)
            with contextlib.suppress(OSError):
                client.sendall(more[2000:])
            with contextlib.suppress(ConnectionResetError):
                assert rest(client).startswith(b"HTTP/1.1 200 OK")


SMUGGLING = {
    "length and encoding": b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nX",
    "two lengths": b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "a list of lengths": b"content-length: 1, 2\r\n\r\nab",
    "a signed length": b"content-length: +1\r\n\r\na",
    "a hexadecimal length": b"content-length: 0x1\r\n\r\na",
    "a space before the colon": b"content-length : 1\r\n\r\na",
    "an unknown encoding": b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked is not the last": b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a chunk size that is none": b"transfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    "a chunk that is longer": b"transfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "a NUL in a value": b"x-nul: a\x00b\r\n\r\n",
    "a carriage return in a value": b"x-cr: a\rb\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_what_two_servers_would_read_differently_is_no_request(
    daemon: ServdProcess, name: str
) -> None:
    """RFC 9112, 6.3 and 11.2: nothing of it reaches the app as a request of its own."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
    with connected(daemon) as client:
        client.sendall(HEAD + SMUGGLING[name] + smuggled)
        with contextlib.suppress(ConnectionResetError):
            answer = rest(client)
            statuses = [line.split()[1] for line in answer.split(b"\r\n") if line[:5] == b"HTTP/"]
            assert b"200" not in statuses[1:], answer
            assert statuses[:1] in ([b"400"], [b"501"], [b"408"], [b"200"]), answer


@pytest.mark.parametrize("parser", ["httptools", "h11"])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_answer_reaches_a_client_that_is_still_sending(
    servd: Servd, parser: str, chunked: bool
) -> None:
    """Closing a connection with unread data resets it, and takes the answer with it."""
    config = f"""
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        limits = {{ body = "1KiB" }}
        uvicorn = {{ http = "{parser}" }}
    """
    app = """
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        while (await receive()).get("more_body"):
            pass
    """
    daemon = servd(config, main_py=app).ready()
    url = urlsplit(daemon.url("web"))
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {2**25}"
    piece = b"x" * 2**16
    piece = b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
    for _ in range(5):
        with socket.create_connection((url.hostname, url.port), DEADLINE) as client:
            client.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
            for _ in range(2**9):
                client.sendall(piece)  # it fails if it is reset
            if chunked:
                client.sendall(b"0\r\n\r\n")
            answer = rest(client)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"request_id" in answer
    labels = {"service": "web", "method": "POST", "code": "413"}
    assert daemon.metric("servd_requests_total", **labels) == 5
