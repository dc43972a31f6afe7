"""A real nginx and a real HAProxy in front of a service, as people deploy it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.sync.client import connect

from support.harness import DEADLINE, ServdProcess, free_port, servd_for, wait_until

APP = """
import asyncio, json, os

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"] + "!"})
        return
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not os.path.exists("go"):
            await send({"type": "http.response.body", "body": b"tick\\n", "more_body": True})
            await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"end"})
        return
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    said = json.dumps({
        "headers": [(n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"]],
        "client": scope["client"][0], "scheme": scope["scheme"], "size": size, "pid": os.getpid(),
    }).encode()
    length = (b"content-length", b"%d" % len(said))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": said})
"""
CONFIG = """
[defaults]
limits = { body = "1MiB" }
proxy = { headers = true }
timeouts = { drain = "5s" }
[services.httptools]
app = "main:app"
listen = "127.0.0.1:0"
uvicorn = { http = "httptools" }
[services.h11]
app = "main:app"
listen = "127.0.0.1:0"
uvicorn = { http = "h11" }
"""
NGINX = """
worker_processes 1;
pid nginx.pid;
error_log nginx.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    client_max_body_size 100m;
    map $http_upgrade $connection_of_upstream {{ default upgrade; "" ""; }}
    upstream service {{ server {upstream}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_of_upstream;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-User "";
        }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 60s
frontend front
    bind 127.0.0.1:{port}
    http-request del-header X-Forwarded-For
    http-request del-header X-User
    http-request set-header X-Forwarded-Proto https
    option forwardfor
    default_backend service
backend service
    http-reuse always
    retry-on conn-failure empty-response
    server one {upstream}
"""
PATH = f"{os.environ['PATH']}:/usr/sbin"

pytestmark = pytest.mark.slow


def command_of(proxy: str, file: str, folder: Path) -> list[str]:
    program = shutil.which(proxy, path=PATH)
    if program is None:
        pytest.skip(f"needs {proxy}")
    if proxy == "haproxy":
        return [program, "-db", "-f", file]
    as_root = "user root;" if os.geteuid() == 0 else ""
    return [program, "-p", str(folder), "-c", file, "-g", f"daemon off; {as_root}"]


@contextlib.contextmanager
def in_front(proxy: str, upstream: str, folder: Path) -> Iterator[int]:
    """The port of a proxy in front of `upstream`."""
    port = free_port()
    file = folder / f"{proxy}.conf"
    text = NGINX if proxy == "nginx" else HAPROXY
    file.write_text(text.format(port=port, upstream=upstream))
    process = subprocess.Popen(
        command_of(proxy, str(file), folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )

    def listens() -> bool:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    try:
        wait_until(listens, f"{proxy} listens")
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServdProcess]:
    for servd in servd_for(tmp_path_factory.mktemp("behind")):
        yield servd(CONFIG, main_py=APP).ready()


@pytest.fixture(
    scope="module",
    params=[(proxy, parser) for proxy in ("nginx", "haproxy") for parser in ("httptools", "h11")],
    ids="-".join,
)
def front(
    request: pytest.FixtureRequest,
    daemon: ServdProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, int]]:
    """The service behind a proxy, and the port of the proxy."""
    proxy, parser = request.param
    upstream = urlsplit(daemon.url(parser)).netloc
    with in_front(proxy, upstream, tmp_path_factory.mktemp("proxy")) as port:
        yield parser, port


def ask(port: int, raw: bytes) -> tuple[int, Any]:
    """The answer to what a client from 127.0.0.2 sends."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE, ("127.0.0.2", 0)) as client:
        client.sendall(raw)
        response = b""
        while part := client.recv(65536):
            response += part
    head, _, body = response.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        body = body.partition(b"\r\n")[2].rpartition(b"\r\n0\r\n")[0]
    status = int(head.split()[1])
    return status, json.loads(body) if status == 200 else body


def test_no_field_of_a_trailer_passes_for_one_of_the_proxy(
    daemon: ServdProcess, front: tuple[str, int]
) -> None:
    service, port = front
    status, seen = ask(
        port,
        b"POST /trailer HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\nX-User: eve\r\n"
        b"X-Forwarded-For: 5.5.5.5\r\nTransfer-Encoding: chunked\r\n"
        b"Trailer: X-User, X-Forwarded-For\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\nX-User: admin\r\n\r\n",
    )
    assert status == 200
    assert (seen["client"], seen["scheme"], seen["size"]) == ("127.0.0.2", "https", 5)
    fields = [(name, value) for name, value in seen["headers"] if name.startswith("x-")]
    assert sorted(fields) == [("x-forwarded-for", "127.0.0.2"), ("x-forwarded-proto", "https")]
    assert ["host", "shop.example"] in seen["headers"]
    daemon.wait_for_line(
        "request", service=service, **{"url.path": "/trailer", "client.address": "127.0.0.2"}
    )


def test_what_hides_in_a_body_is_no_request(daemon: ServdProcess, front: tuple[str, int]) -> None:
    """The classics: a length beside chunks, chunks in disguise, a chunk's extension, a bare LF."""
    service, port = front
    hidden = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    length = b"Content-Length: %d\r\n" % (len(hidden) + 5)
    for fields, body in (
        (length + b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n" + hidden),
        (length + b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + hidden),
        (length + b"Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n" + hidden),
        (length + b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n" + hidden),
        (length + b"X: y\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + hidden),
        (b"Content-Length: 0\r\n" + length, b"0\r\n\r\n" + hidden),
        (length + b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"0\r\n\r\n" + hidden),
        (b"Transfer-Encoding: chunked\r\n", b"1;x=\n" + hidden + b"\r\n0\r\n\r\n"),
    ):
        raw = b"POST /outer HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n" + body
        raw += b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
            client.sendall(raw)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(65536):
                    pass
    status, _ = ask(port, b"GET /after HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status == 200
    daemon.wait_for_line("request", service=service, **{"url.path": "/after"})
    assert not daemon.lines("request", service=service, **{"url.path": "/smuggled"})


def test_a_body_that_is_too_long_is_answered(front: tuple[str, int]) -> None:
    """413 reaches the client: the proxy is still sending when it is answered."""
    answer = httpx.post(f"http://127.0.0.1:{front[1]}/", content=b"x" * 2**24, timeout=DEADLINE)
    assert answer.status_code == 413
    answer = httpx.post(f"http://127.0.0.1:{front[1]}/", content=b"x" * 2**19, timeout=DEADLINE)
    assert answer.json()["size"] == 2**19


def test_websockets_and_streams_pass(daemon: ServdProcess, front: tuple[str, int]) -> None:
    _, port = front
    with connect(f"ws://127.0.0.1:{port}/ws", open_timeout=DEADLINE) as client:
        for text in ("a", "b" * 70_000):
            client.send(text)
            assert client.recv(DEADLINE) == text + "!"
    go = daemon.folder / "go"
    go.unlink(missing_ok=True)
    with httpx.stream("GET", f"http://127.0.0.1:{port}/stream", timeout=DEADLINE) as answer:
        chunks = answer.iter_text()
        assert next(chunks).startswith("tick")  # it comes while the app goes on
        go.touch()
        assert "".join(chunks).endswith("end")


def test_a_roll_loses_nothing_behind_it(daemon: ServdProcess, front: tuple[str, int]) -> None:
    service, port = front
    over = threading.Event()
    failed: list[int] = []
    served: list[int] = []

    def load() -> None:
        with httpx.Client(timeout=DEADLINE) as client:
            while not over.is_set():
                answer = client.get(f"http://127.0.0.1:{port}/load")
                (served if answer.status_code == 200 else failed).append(answer.status_code)

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    for roll in range(1, 4):
        wait_until(functools.partial(lambda least: len(served) > least, 20 * roll), "requests")
        daemon.act(service, "restart")
    over.set()
    for client in clients:
        client.join()
    assert failed == []
    assert len(served) > 60
