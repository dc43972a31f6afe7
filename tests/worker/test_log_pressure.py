"""A log that nobody takes: requests go on being answered, and what was dropped is counted."""

from __future__ import annotations

import os
import signal
import statistics
import time

import httpx

from support.harness import Servd, wait_until

APP = """
    import logging

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/talk":
            for number in range(2000):
                logging.getLogger("app").warning("a line of some length, over and over %d", number)
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""
CONFIG = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    watchdog = "none"
"""


def test_a_daemon_that_does_not_read_holds_no_request_up(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=APP).ready()
    requests = 4000

    def ask(count: int) -> tuple[float, float]:
        """The median of so many requests, and one whose code logs 2000 lines, in seconds."""
        took: list[float] = []
        for _ in range(count):
            began = time.perf_counter()
            assert client.get("/").status_code == 200
            took.append(time.perf_counter() - began)
        began = time.perf_counter()
        assert client.get("/talk").status_code == 200  # the standard library's logging too
        return statistics.median(took), time.perf_counter() - began

    # A write that waits for the daemon waits until this gives up: nobody lets the daemon go on.
    with httpx.Client(base_url=daemon.url("web"), timeout=60) as client:
        client.get("/")
        usual = ask(500)
        wait_until(lambda: len(daemon.find("request")) == 502, "all of these are in the log")
        before = daemon.metric("servd_log_lines_dropped_total") or 0
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            median, talked = ask(requests)
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
    print(f"median {median * 1000:.2f} ms; 2000 lines of logging in {talked * 1000:.0f} ms")
    assert median < 0.02 + 5 * usual[0]  # a short wait for each line would show here

    written = wait_until(
        lambda: found if (found := len(daemon.find("request")) - 502) > 100 else 0, "what was kept"
    )
    dropped = (daemon.metric("servd_log_lines_dropped_total") or 0) - before
    assert dropped
    assert written + dropped <= requests + 2 + 2000
    daemon.get("web", "/later")
    daemon.wait_for("request", **{"url.path": "/later"})
