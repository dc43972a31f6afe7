"""WSGI apps as PEP 3333 has them: under wsgiref's own validator, with clients that leave."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from support.harness import DEADLINE, ServdProcess, servd_for, wait_until

APP = """
import json, os, sys, threading, time
from wsgiref.validate import validator

PLAIN = [("Content-Type", "text/plain")]

def environ_(environ, start_response):
    shown = {k: v for k, v in environ.items() if isinstance(v, str)}
    shown["body"] = environ["wsgi.input"].read(1000).decode("latin-1")
    said = json.dumps(shown).encode()
    start_response("200 OK", PLAIN + [("Content-Length", str(len(said)))])
    return [said]

def lines(environ, start_response):
    found = [environ["wsgi.input"].readline(100).decode() for _ in range(3)]
    start_response("200 OK", PLAIN)
    return [json.dumps(found).encode()]

def several(environ, start_response):
    write = start_response("201 Created", PLAIN)
    write(b"a")
    return iter([b"b", b"", b"c"])

def nothing(environ, start_response):
    start_response("200 OK", PLAIN)
    return iter([])

def fails_before(environ, start_response):
    start_response("200 OK", PLAIN)
    raise RuntimeError("before any byte")

def replaces(environ, start_response):
    start_response("200 OK", PLAIN)
    try:
        raise RuntimeError("before any byte")
    except RuntimeError:
        start_response("503 Service Unavailable", PLAIN, sys.exc_info())
    return [b"replaced"]

def fails_after(environ, start_response):
    start_response("200 OK", PLAIN)
    yield b"begun"
    try:
        raise RuntimeError("after")
    except RuntimeError:
        start_response("500 Oops", PLAIN, sys.exc_info())
    yield b"never"

class Stream:
    def __init__(self):
        self.closed = False
    def __iter__(self):
        return self
    def __next__(self):
        time.sleep(0.01)
        return b"x" * 1000
    def close(self):
        print("closed", flush=True)

def stream(environ, start_response):
    start_response("200 OK", PLAIN)
    return Stream()

ROUTES = {"/lines": lines, "/several": several, "/nothing": nothing, "/fails-before": fails_before,
          "/replaces": replaces, "/fails-after": fails_after}

def app(environ, start_response):
    if environ["PATH_INFO"] == "/stream":
        return stream(environ, start_response)
    return validator(ROUTES.get(environ["PATH_INFO"], environ_))(environ, start_response)
"""
CONFIG = """
[services.web]
app = "main:app"
listen = ["127.0.0.1:0", "unix:web.sock"]
threads = 4
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServdProcess]:
    for servd in servd_for(tmp_path_factory.mktemp("wsgi")):
        yield servd(CONFIG, main_py=APP).ready()


def test_the_environ_is_what_pep_3333_says(daemon: ServdProcess) -> None:
    headers = {"X-Under": "dash", "X_Under": "underscore", "Cookie": "a=1", "Content-Type": "a/b"}
    url = daemon.url("web")
    answer = httpx.post(f"{url}/%E2%82%AC/%ff%2F?q=%20", content=b"body", headers=headers)
    shown = answer.json()
    assert shown["PATH_INFO"].encode("latin-1") == b"/\xe2\x82\xac/\xff/"
    assert shown["RAW_URI"] == "/%E2%82%AC/%ff%2F?q=%20"
    assert shown["QUERY_STRING"] == "q=%20"
    assert shown["HTTP_X_UNDER"] == "dash"
    assert (shown["CONTENT_TYPE"], shown["CONTENT_LENGTH"]) == ("a/b", "4")
    assert shown["body"] == "body"
    assert (shown["SERVER_NAME"], shown["SERVER_PORT"]) == ("127.0.0.1", str(urlsplit(url).port))
    assert shown["REMOTE_ADDR"] == "127.0.0.1"


def test_of_a_unix_socket_names_come_from_the_host(daemon: ServdProcess) -> None:
    transport = httpx.HTTPTransport(uds=str(daemon.folder / "web.sock"))
    with httpx.Client(transport=transport) as client:
        for host, name, port in (("x", "x", "80"), ("x:81", "x", "81"), ("[::1]", "[::1]", "80")):
            shown = client.get("http://x/", headers={"Host": host}).json()
            assert (shown["SERVER_NAME"], shown["SERVER_PORT"]) == (name, port)
            assert shown["REMOTE_ADDR"] == ""


def test_answers_come_as_the_app_makes_them(daemon: ServdProcess) -> None:
    assert daemon.get("web", "/several").text == "abc"
    assert daemon.get("web", "/several").status_code == 201
    assert daemon.get("web", "/nothing").content == b""
    lines = httpx.post(daemon.url("web") + "/lines", content=b"one\ntwo\nthree").text
    assert json.loads(lines) == ["one\n", "two\n", "three"]


def test_what_fails_before_any_byte_is_another_answer(daemon: ServdProcess) -> None:
    assert daemon.get("web", "/fails-before").status_code == 500
    replaced = daemon.get("web", "/replaces")
    assert (replaced.status_code, replaced.text) == (503, "replaced")
    with pytest.raises(httpx.RemoteProtocolError):
        daemon.get("web", "/fails-after")


def test_the_answer_of_a_client_that_has_gone_is_closed(daemon: ServdProcess) -> None:
    url = urlsplit(daemon.url("web"))
    for _ in range(9):  # more than there are threads
        with socket.create_connection((url.hostname, url.port), DEADLINE) as client:
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100)
    wait_until(lambda: len(daemon.lines("closed", service="web")) == 9, "all are closed")
    assert daemon.get("web", "/several").status_code == 201
