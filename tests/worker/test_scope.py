"""What apps are told of a connection."""

from __future__ import annotations

import email.utils
import http.client
import signal
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.sync.client import unix_connect

from support.config_texts import loaded_text
from support.harness import DEADLINE, Servd

APP = """
import asyncio, json, os
from fastapi import FastAPI, Request, WebSocket
app = FastAPI()

@app.get("/")
def server(request: Request):
    return request.scope["server"]

@app.websocket("/")
async def server_of_websocket(ws: WebSocket):
    await ws.accept()
    await ws.send_text(json.dumps(ws.scope["server"]))

@app.get("/held")
async def held():
    print("held", flush=True)
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
"""


@pytest.mark.parametrize("parser", ["httptools", "h11"])
@pytest.mark.parametrize("ws", ["websockets-sansio", "websockets"])
def test_a_unix_socket_has_the_name_that_clients_know(servd: Servd, parser: str, ws: str) -> None:
    path = f"{servd._short}/web.sock"
    config = f"""
        [services.web]
        app = "main:app"
        listen = "unix:{path}"
        uvicorn = {{ http = "{parser}", ws = "{ws}" }}
    """
    servd(config, main_py=APP).ready()
    with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
        assert client.get("http://x/").json() == [path, None]
    with unix_connect(path, "ws://x/", open_timeout=DEADLINE) as socket:
        assert socket.recv(DEADLINE) == f'["{path}", null]'


def test_the_date_goes_on_while_the_drain_does(servd: Servd) -> None:
    config = """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        timeouts = { keep_alive = "60s", drain = "60s" }
    """
    daemon = servd(config, main_py=APP).ready()
    url = urlsplit(daemon.url("web"))
    kept = http.client.HTTPConnection(url.hostname or "", url.port, timeout=DEADLINE)
    kept.request("GET", "/")
    kept.getresponse().read()
    with daemon.asking("web", "/held"):
        daemon.wait_for_line("held", service="web")
        daemon.send(signal.SIGTERM)
        daemon.wait_for("worker draining", service="web")
        time.sleep(2.5)  # what a date has to show
        asked = time.time()
        kept.request("GET", "/")
        answer = kept.getresponse()
        answer.read()
        date = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
        assert abs(date - asked) < 2.1
        assert answer.headers["connection"] == "close"
        (servd.folder / "go").touch()
    kept.close()
    assert daemon.wait() == 0


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        ("nginx", "is not a peer: "),
        ("", "is not a peer: "),
        ("10.0.0.1/8", 'write "10.0.0.0/8" for the whole network'),
        ("10.0.0.300", "is not a peer: "),
    ],
)
def test_a_peer_that_matches_nobody_is_a_mistake(peer: str, said: str) -> None:
    loaded = loaded_text(f'[services.web]\napp = "main:app"\nproxy = {{ trusted = ["{peer}"] }}')
    assert any(said in error.message for error in loaded.errors)


def test_peers_are_trusted_by_address_network_or_all() -> None:
    peers = '["127.0.0.1", "::1", "10.0.0.0/8", "fd00::/8", "unix", "*"]'
    loaded = loaded_text(f'[services.web]\napp = "main:app"\nproxy = {{ trusted = {peers} }}')
    assert not [error for error in loaded.errors if "trusted" in error.path]
    default = loaded_text('[services.web]\napp = "main:app"').config.services["web"].proxy
    assert default.trusted == ("127.0.0.1", "::1")


WRONG = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    length = b"10" if scope["path"] == "/short" else b"3"
    headers = [(b"content-length", b"5" if scope["path"] == "/right" else length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"he", "more_body": True})
    await send({"type": "http.response.body", "body": b"llo"})
"""


@pytest.mark.parametrize("parser", ["httptools", "h11"])
def test_a_body_of_another_length_is_logged_as_a_failure(servd: Servd, parser: str) -> None:
    config = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n'
    config += f'uvicorn.http = "{parser}"\n'
    daemon = servd(config, main_py=WRONG).ready()
    for path in ("/short", "/long"):
        with pytest.raises(httpx.RemoteProtocolError):
            daemon.get("web", path)
        failed = {"url.path": path, "http.response.status_code": 500}
        daemon.wait_for_line("request", **failed)
    assert daemon.get("web", "/right").text == "hello"
    daemon.wait_for_line("request", **{"url.path": "/right", "http.response.status_code": 200})
    assert daemon.stop() == 0


BODILESS = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    _, status, framing = scope["path"].split("/")
    headers = {"length": [(b"content-length", b"5")], "none": [],
               "chunked": [(b"transfer-encoding", b"chunked")]}[framing]
    body = b"" if status == "200" or scope["query_string"] == b"empty" else b"hello"
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize("parser", ["httptools", "h11"])
def test_a_response_that_has_no_body_is_followed_by_the_next(servd: Servd, parser: str) -> None:
    """Whatever its app says of a body, which a client would take for the next response."""
    config = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n'
    config += f'uvicorn.http = "{parser}"\n'
    daemon = servd(config, main_py=BODILESS).ready()
    url = httpx.URL(daemon.url("web"))
    for status in ("204", "304"):
        for path in ("length", "chunked", "none", "length?empty", "chunked?empty", "none?empty"):
            said = _conversation(url, f"/{status}/{path}", "/200/none")
            first, _, rest = said.partition(b"\r\n\r\n")
            assert first.startswith(f"HTTP/1.1 {status} ".encode())
            assert rest == b"" or rest.startswith(b"HTTP/1.1 200 OK\r\n"), path
            assert parser == "h11" or rest, "the connection goes on"
    for line in daemon.find("request"):
        assert line["http.response.status_code"] in (200, 204, 304) or parser == "h11"
    assert daemon.stop() == 0


def _conversation(url: httpx.URL, *paths: str) -> bytes:
    """What a client reads that asks for the paths, one after the other, on one connection."""
    asked = [f"GET {path} HTTP/1.1\r\nHost: x\r\n" for path in paths]
    asked[-1] += "Connection: close\r\n"
    with socket.create_connection((url.host, url.port or 0), DEADLINE) as client:
        client.sendall("".join(f"{each}\r\n" for each in asked).encode())
        said = b""
        while part := client.recv(65536):
            said += part
    return said
