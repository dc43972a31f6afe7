"""A request is one line on a terminal: its method, path, status, duration and client."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from servd.daemon.log.console import console_renderer
from servd.daemon.log.event import LogEvent

from support.harness import DEADLINE, Servd, wait_until

REQUEST = {
    "timestamp": "2026-01-31T12:00:00.123456Z", "level": "info", "event": "request",
    "http.request.method": "GET", "url.path": "/a", "http.response.status_code": 200,
    "client.address": "127.0.0.1", "duration_ms": 0.84, "request_id": "5c", "service": "web",
    "worker": 0, "generation": 1, "pid": 7,
}  # fmt: skip
HEAD = "web | 12:00:00.123 [info     ] "


def shown(fields: dict[str, Any], *, colours: bool = False) -> str:
    event = LogEvent.by_worker("web", json.dumps(REQUEST | fields).encode())
    return console_renderer(colours=colours)(event).decode()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "GET /a 200 0.8 ms  127.0.0.1"),
        ({"client.address": ""}, "GET /a 200 0.8 ms"),
        ({"duration_ms": 1234.5}, "GET /a 200 1.23 s  127.0.0.1"),
        ({"duration_ms": 123.4}, "GET /a 200 123 ms  127.0.0.1"),
        ({"http.response.status_code": 503}, "GET /a 503 0.8 ms  127.0.0.1 request_id=5c"),
        ({"url.path": "/ä b%"}, "GET /ä%20b%25 200 0.8 ms  127.0.0.1"),
        ({"url.path": "/a\nweb | x\r\t"}, r"GET /a%0Aweb%20|%20x\r%09 200 0.8 ms  127.0.0.1"),
        ({"url.path": "/\x1b[2J\u202e\u2028"}, r"GET /\x1b[2J\u202e\u2028 200 0.8 ms  127.0.0.1"),
        ({"client.address": "\x1b\n"}, r"GET /a 200 0.8 ms  \x1b%0A"),
    ],
)
def test_a_request_is_one_line(fields: dict[str, Any], line: str) -> None:
    assert shown(fields) == HEAD + line


def test_an_event_without_the_fields_of_a_request_is_shown_as_it_is() -> None:
    assert "request" in shown({"http.response.status_code": "no"})
    assert "http.request.method=GET" in shown({"duration_ms": None})
    assert "http.request.method=GET" in shown({"event": "other"})


def test_the_status_has_a_colour_and_the_client_is_dim() -> None:
    for status, code in ((200, 32), (302, 36), (404, 33), (500, 31)):
        line = shown({"http.response.status_code": status}, colours=True)
        assert f"GET /a \x1b[{code}m{status}\x1b[0m 0.8 ms  \x1b[2m127.0.0.1" in line


APPS = """
from fastapi import FastAPI, WebSocket

app = FastAPI()

@app.get("/{path:path}")
async def get(path: str):
    return path

@app.websocket("/forbidden")
async def forbidden(socket: WebSocket):
    await socket.close()

def wsgi(environ, start_response):
    start_response("404 Not Found", [("content-length", "0")])
    return [b""]
"""
CONFIG = """
[daemon]
log = { format = "FORM" }
[services.web]
app = "main:app"
listen = "127.0.0.1:0"
[services.old]
app = "main:wsgi"
listen = "127.0.0.1:0"
"""


def test_the_console_log_has_a_line_for_each_request_and_json_has_events(servd: Servd) -> None:
    daemon = servd(CONFIG.replace("FORM", "json"), main_py=APPS).ready()
    assert daemon.get("web", "/a%20b?token=secret").status_code == 200
    event = daemon.wait_for("request", service="web")
    assert event["url.path"] == "/a b"
    assert event["http.response.status_code"] == 200
    daemon.stop()

    daemon = servd(CONFIG.replace("FORM", "console"))
    wait_until(lambda: "servd ready" in daemon.output, "it is ready")
    web, old = (daemon.service(name)["listen"][0] for name in ("web", "old"))
    httpx.get(f"{web}/a%20b%09c?token=secret")
    httpx.post(f"{old}/gone", content=b"x")
    with pytest.raises(InvalidStatus), connect(f"ws{web[4:]}/forbidden", open_timeout=DEADLINE):
        pass

    def is_there(pattern: str) -> bool:
        return re.search(pattern, daemon.output, re.MULTILINE) is not None

    for line in (
        r"web \| [\d:.]+ \[info *\] GET /a%20b%09c 200 [\d.]+ m?s  127\.0\.0\.1",
        r"old \| [\d:.]+ \[info *\] POST /gone 404 [\d.]+ m?s  127\.0\.0\.1",
        r"web \| [\d:.]+ \[info *\] GET /forbidden 403 [\d.]+ m?s  127\.0\.0\.1",
    ):
        wait_until(
            partial(is_there, f"^{line}$"),
            f"{line} is there",
        )
    assert "secret" not in daemon.output
    assert "GET /a%20b%09c 200" in daemon.cli("logs").stdout
