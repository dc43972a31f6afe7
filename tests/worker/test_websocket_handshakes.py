"""Handshakes of WebSockets: right ones, wrong ones, and what they do to others."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from support.harness import DEADLINE, Servd, ServdProcess, servd_for, wait_until

APP = """
import contextlib
from fastapi import FastAPI, WebSocket
from starlette.responses import PlainTextResponse

@contextlib.asynccontextmanager
async def lifespan(app):
    yield
    print("shut down", flush=True)

app = FastAPI(lifespan=lifespan)

@app.websocket("/echo")
async def echo(ws: WebSocket):
    await ws.accept()
    async for text in ws.iter_text():
        await ws.send_text(text)

@app.websocket("/forbidden")
async def forbidden(ws: WebSocket):
    await ws.close()

@app.websocket("/teapot")
async def teapot(ws: WebSocket):
    await ws.send_denial_response(PlainTextResponse("no", 418))

@app.websocket("/fails")
async def fails(ws: WebSocket):
    raise RuntimeError("before")

@app.websocket("/fails-later")
async def fails_later(ws: WebSocket):
    await ws.accept()
    raise RuntimeError("after")
"""
LIBRARIES = [
    (http, ws)
    for http in ("httptools", "h11")
    for ws in ("websockets-sansio", "websockets", "wsproto")
]
NAMES = [f"{http}-{ws}" for http, ws in LIBRARIES]
CONFIG = '[defaults]\ntimeouts = { headers = "2s", drain = "1s" }\n' + "".join(
    f"""
    [services.{http}-{ws}]
    app = "main:app"
    listen = "127.0.0.1:0"
    uvicorn = {{ http = "{http}", ws = "{ws}" }}
    """
    for http, ws in LIBRARIES
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServdProcess]:
    for servd in servd_for(tmp_path_factory.mktemp("ws")):
        yield servd(CONFIG, main_py=APP).ready()


def open_(daemon: ServdProcess, name: str, path: str = "/echo") -> ClientConnection:
    url = daemon.url(name).replace("http://", "ws://")
    return connect(url + path, open_timeout=DEADLINE, close_timeout=DEADLINE)


GOOD = {
    "Host": "x", "Connection": "Upgrade", "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13",
}  # fmt: skip


def shake(
    daemon: ServdProcess, name: str, method: str = "GET", body: str = "", **more: str
) -> bytes:
    """What is answered to a handshake, until the connection ends or a head has come."""
    fields = GOOD | {key.replace("_", "-"): value for key, value in more.items()}
    lines = [f"{method} /echo HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items() if v), "", body]
    url = urlsplit(daemon.url(name))
    with socket.create_connection((url.hostname, url.port), DEADLINE) as client:
        client.sendall("\r\n".join(lines).encode())
        said = b""
        while b"\r\n\r\n" not in said:
            try:
                part = client.recv(65536)
            except ConnectionResetError:
                break
            if not part:
                break
            said += part
        return said


@pytest.mark.parametrize("name", NAMES)
def test_what_the_library_would_not_answer_is_refused(daemon: ServdProcess, name: str) -> None:
    def status(*arguments: str, **more: str) -> int:
        return int(shake(daemon, name, *arguments, **more).split()[1])

    assert status() == 101
    assert status(Cookie="a" * 8000) == 101
    assert status(Cookie="a" * 9000) == 431
    assert status(**{f"X{number}": "y" for number in range(200)}) == 431
    assert status("POST") == 400
    assert status("POST", "hello", Content_Length="5") == 400
    assert status("GET", "hello", Content_Length="5") == 400
    assert status("GET", "0\r\n\r\n", Transfer_Encoding="chunked") == 400
    assert 400 <= status(Sec_WebSocket_Version="12") < 500
    for wrong in (
        "short",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZQ==",
        "******************====",
    ):
        assert 400 <= status(Sec_WebSocket_Key=wrong) < 500, wrong
    assert 400 <= status(Sec_WebSocket_Key="") < 500


@pytest.mark.parametrize("name", NAMES)
def test_refused_handshakes_are_logged_and_counted(daemon: ServdProcess, name: str) -> None:
    for path, status in (("/forbidden", 403), ("/teapot", 418), ("/fails", 500)):
        with pytest.raises(InvalidStatus) as refused, open_(daemon, name, path):
            pass
        assert refused.value.response.status_code == status
        fields = {"url.path": path, "http.response.status_code": status, "service": name}
        daemon.wait_for_line("request", **fields)
        labels = {"service": name, "method": "GET", "code": str(status)}
        assert daemon.metric("servd_requests_total", **labels) == 1


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_after_the_accept_closes_with_1011(daemon: ServdProcess, name: str) -> None:
    with open_(daemon, name, "/fails-later") as client, pytest.raises(ConnectionClosed) as closed:
        client.recv(DEADLINE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011


@pytest.mark.parametrize("ws", sorted({ws for _, ws in LIBRARIES}))
def test_what_is_stuck_does_not_keep_others_from_their_end(servd: Servd, ws: str) -> None:
    config = f"""
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        timeouts = {{ drain = "2s" }}
        uvicorn = {{ ws = "{ws}" }}
    """
    daemon = servd(config, main_py=APP).ready()
    url = urlsplit(daemon.url("web"))
    with open_(daemon, "web") as client, socket.create_connection((url.hostname, url.port)) as half:
        half.sendall(
            b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        )
        client.send("hello")
        assert client.recv(DEADLINE) == "hello"
        daemon.act("web", "stop")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(DEADLINE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        wait_until(lambda: daemon.lines("shut down", service="web"), "the lifespan ends")
    assert daemon.stop() == 0
