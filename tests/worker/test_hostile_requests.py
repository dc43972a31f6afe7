"""Requests that servers read differently, over both parsers: refused, or read in the right way."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil
import pytest

from servd.worker.http_rules import refusal_of, refusal_of_text

from support.harness import DEADLINE, ServdProcess, servd_for

ECHO = """
import json

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    said = json.dumps({
        "headers": [(n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"]],
        "body": body.decode("latin-1"), "client": scope["client"], "path": scope["path"],
    }).encode()
    length = (b"content-length", str(len(said)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": said})
"""
CONFIG = """
[services.httptools]
app = "main:app"
listen = "127.0.0.1:0"
uvicorn = { http = "httptools" }
limits = { body = 1000 }
proxy = { headers = true }
[services.h11]
app = "main:app"
listen = "127.0.0.1:0"
uvicorn = { http = "h11" }
limits = { body = 1000 }
proxy = { headers = true }
"""
PARSERS = ("httptools", "h11")


class Answer(NamedTuple):
    """One answer; `body` is what the app echoed, None for others."""

    status: int
    body: Any


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServdProcess]:
    folder: Path = tmp_path_factory.mktemp("hostile")
    for servd in servd_for(folder):
        yield servd(CONFIG, main_py=ECHO).ready()


def ask(daemon: ServdProcess, parser: str, *parts: bytes) -> list[Answer]:
    """The answers to what is sent on one connection, until it ends or `Connection: close` does."""
    url = urlsplit(daemon.url(parser))
    with socket.create_connection((url.hostname, url.port), DEADLINE) as client:
        for part in parts:
            try:
                client.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                break
        file = client.makefile("rb")
        return list(answers(file))


def answers(file: Any) -> Iterator[Answer]:
    while True:
        try:
            line = file.readline()
        except ConnectionResetError:
            return
        if not line:
            return
        length = 0
        close = False
        while (field := file.readline().strip().lower()) != b"":
            length = int(field[15:]) if field.startswith(b"content-length:") else length
            close = close or field == b"connection: close"
        body = file.read(length)
        status = int(line.split()[1])
        yield Answer(status, json.loads(body) if status == 200 else None)
        if close:
            return


def get(*lines: bytes, first: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([first, *lines, b"", b""])


H = b"Host: x"
C = b"Connection: close"
CHUNKED = b"Transfer-Encoding: chunked"
REFUSED = {
    "two hosts": (400, get(H, H)),
    "two different hosts": (400, get(H, b"Host: y")),
    "no host": (400, get(b"Accept: */*")),
    "a host with a path": (400, get(b"Host: x/evil@y")),
    "a host with a user": (400, get(b"Host: evil@y")),
    "a host with a space": (400, get(b"Host: x y")),
    "a host with two ports": (400, get(b"Host: x:1:2")),
    "gzip, chunked": (501, get(H, b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    "chunked twice": (501, get(H, CHUNKED, CHUNKED) + b"0\r\n\r\n"),
    "identity": (501, get(H, b"Transfer-Encoding: identity")),
    "xchunked": (501, get(H, b"Transfer-Encoding: xchunked")),
    "chunked in 1.0": (400, get(H, CHUNKED, first=b"POST / HTTP/1.0") + b"0\r\n\r\n"),
    "0.9": (505, b"GET /\r\n\r\n"),
    "0.9 in the line": (505, get(H, first=b"GET / HTTP/0.9")),
    "2.0 in the line": (505, get(H, first=b"GET / HTTP/2.0")),
    "length and chunked": (400, get(H, CHUNKED, b"Content-Length: 5") + b"0\r\n\r\n"),
    "two lengths": (400, get(H, b"Content-Length: 5", b"Content-Length: 6") + b"hello!"),
    "two equal lengths": (400, get(H, b"Content-Length: 5", b"Content-Length: 5") + b"hello"),
    "a list of lengths": (400, get(H, b"Content-Length: 5, 5") + b"hello"),
    "a signed length": (400, get(H, b"Content-Length: +5") + b"hello"),
    "a negative length": (400, get(H, b"Content-Length: -5")),
    "bare LF": (400, b"GET / HTTP/1.1\nHost: x\n\n"),
    "a bare LF within": (400, b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n"),
    "a bare CR": (400, b"GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n"),
    "obs-fold": (400, get(H, b"X: a", b" b")),
    "a space before the colon": (400, get(H, b"X : a")),
    "no colon": (400, get(H, b"X")),
    "a NUL": (400, get(H, b"X: a\0b")),
    "a URL of 70 KB": (431, get(H, first=b"GET /" + b"a" * 70_000 + b" HTTP/1.1")),
    "a header of 70 KB": (431, get(H, b"X: " + b"a" * 70_000)),
    "a method of garbage": (400, get(H, first=b"G@T / HTTP/1.1")),
    "no target": (400, get(H, first=b"GET  HTTP/1.1")),
    "a chunk size of garbage": (400, get(H, CHUNKED) + b"xyz\r\n"),
    "a signed chunk size": (400, get(H, CHUNKED) + b"+5\r\nhello\r\n0\r\n\r\n"),
    "0x": (400, get(H, CHUNKED) + b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk without its end": (400, get(H, CHUNKED) + b"5\r\nhelloX0\r\n\r\n"),
    "an endless chunk size": (400, get(H, CHUNKED) + b"f" * 40 + b"\r\n"),
}
"""Name, the status of servd's answer, and the request. What one parser refuses by itself is 400."""
MINE = {505: {400, 505}, 501: {400, 501}, 431: {431}, 400: {400}}


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_servers_read_differently_is_refused(
    daemon: ServdProcess, parser: str, name: str
) -> None:
    status, request = REFUSED[name]
    found = [answer.status for answer in ask(daemon, parser, request)]
    assert len(found) == 1
    assert found[0] in MINE[status]


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (get(H, C), ""),
        (get(b"Host:", C), ""),
        (get(b"Host: [::1]:80", C), ""),
        (get(b"Host: a_b.example:8000", C), ""),
        (get(C, first=b"GET / HTTP/1.0"), ""),
        (get(H, C, b"Content-Length: 5") + b"hello", "hello"),
        (get(H, C, b"Transfer-Encoding: Chunked") + b"5\r\nhello\r\n0\r\n\r\n", "hello"),
        (get(H, C, CHUNKED) + b"5;a=b;c\r\nhello\r\n0;x\r\nX: y\r\n\r\n", "hello"),
        (get(H, C, CHUNKED) + b"1\r\na\r\n" * 900 + b"0\r\n\r\n", "a" * 900),
    ],
)
def test_what_is_right_is_answered(
    daemon: ServdProcess, parser: str, request_: bytes, body: str
) -> None:
    (answer,) = ask(daemon, parser, request_)
    assert answer.status == 200
    assert answer.body["body"] == body


@pytest.mark.parametrize("parser", PARSERS)
def test_no_field_joins_the_head(daemon: ServdProcess, parser: str) -> None:
    trailer = b"0\r\nX-Forwarded-For: 6.6.6.6\r\nX-User: admin\r\nExpect: 100-continue\r\n\r\n"
    head = get(H, CHUNKED) + b"5\r\nhello\r\n"
    first, second = ask(daemon, parser, head, trailer, get(H, C))
    assert first.status == second.status == 200
    assert dict(first.body["headers"]).keys() == {"host", "transfer-encoding"}
    assert first.body["client"][0] == "127.0.0.1"
    assert dict(second.body["headers"]).keys() == {"host", "connection"}


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("flood", ["one trailer", "trailers", "an extension", "extensions"])
def test_what_frames_a_body_counts_against_the_head(
    daemon: ServdProcess, parser: str, flood: str
) -> None:
    piece = {
        "one trailer": b"a" * 65536,
        "trailers": b"X: y\r\n" * 10_000,
        "an extension": b"a" * 65536,
        "extensions": b"0001;" + b"a" * 60_000 + b"\r\nx\r\n",
    }[flood]
    begin = {"one trailer": b"0\r\nX: ", "trailers": b"0\r\n", "an extension": b"5;a="}.get(
        flood, b""
    )
    (worker,) = daemon.pids(parser)
    before = psutil.Process(worker).memory_info().rss
    found = ask(daemon, parser, get(H, CHUNKED), begin, *[piece] * 640)  # 40 MB
    assert [answer.status for answer in found] in ([431], [413], [400], [])
    assert psutil.Process(worker).memory_info().rss - before < 8 * 2**20
    assert daemon.pids(parser) == [worker]


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_follows_an_offer_that_is_not_taken_up_is_answered(
    daemon: ServdProcess, parser: str, *, at_once: bool
) -> None:
    offer = get(H, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA")
    last = get(H, C, first=b"GET /last HTTP/1.1")
    parts = [offer + get(H) + last] if at_once else [offer, get(H), last]
    found = ask(daemon, parser, *parts)
    assert [answer.status for answer in found] == [200, 200, 200]
    assert found[-1].body["path"] == "/last"


@pytest.mark.parametrize("parser", PARSERS)
def test_earlier_requests_are_answered_before_one_that_is_refused(
    daemon: ServdProcess, parser: str
) -> None:
    found = ask(daemon, parser, get(H) + get(H) + get(H, H))
    statuses = [answer.status for answer in found]
    assert statuses[:2] == [200, 200]
    assert statuses[2:] in ([], [400])


def test_rules_say_why() -> None:
    assert refusal_of([(b"host", b"x")], "1.1") is None
    refused = refusal_of([], "1.1")
    assert refused is not None
    assert "Host" in refused.reason
    assert refusal_of_text(b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\na\nb", 99) is None
