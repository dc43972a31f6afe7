"""How `servd.depends` finds a dependency, and its errors."""

from __future__ import annotations

import asyncio
import gc
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from servd.client.depends import DependencyAddress, address_of, depends, depends_sync
from servd.core.errors import DependencyError


def test_inside_servd_the_address_comes_from_the_daemon() -> None:
    environ = {"SERVD_DEPENDENCIES": '{"api": {"url": "http://api", "uds": "/run/api.sock"}}'}
    assert address_of("api", environ) == DependencyAddress("http://api", "/run/api.sock")


def test_outside_a_variable_says_it() -> None:
    environ = {"SERVD_DEP_MY_API": "http://127.0.0.1:1"}
    assert address_of("my-api", environ) == DependencyAddress("http://127.0.0.1:1")


def test_a_service_is_told_to_depend_on_what_it_asks_for() -> None:
    environ = {"SERVD_SERVICE": "web", "SERVD_DEPENDENCIES": "{}"}
    with pytest.raises(DependencyError, match='"api" is not a dependency of service "web"'):
        address_of("api", environ)


def test_outside_servd_the_error_says_what_to_set() -> None:
    with pytest.raises(DependencyError, match="set SERVD_DEP_API=http"):
        address_of("api", {})


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # nobody can close what a dead loop holds
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_may_be_used_in_one_event_loop_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in unit tests, each with its own loop and its own address."""
    answers = []

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    async def call() -> str:
        return (await depends("api").get("/")).text

    for _ in range(2):
        with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            monkeypatch.setenv("SERVD_DEP_API", f"http://127.0.0.1:{server.server_port}")
            answers += [asyncio.run(call()), asyncio.run(call())]
            answers.append(depends_sync("api").get("/").text)
            server.shutdown()
            thread.join()
    assert answers == ["ok"] * 6
    gc.collect()  # the pools of loops that are over
