"""Request ids and traces: accepted or made, in every log, handed on."""

from __future__ import annotations

import json
import re

import httpx

from support.harness import Servd, ServdProcess, wait_until

APP = """
    import logging, structlog
    from fastapi import FastAPI

    app = FastAPI()
    structlog.configure(processors=[
        structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()])

    @app.get("/log")
    async def log():
        logging.getLogger("app").warning("from logging")
        structlog.get_logger().info("from structlog")
        return {}

    @app.get("/thread")
    def thread():
        logging.getLogger("app").warning("from a thread")
        return {}

    @app.get("/healthz")
    async def healthz():
        return {}

    @app.get("/fail")
    async def fail():
        raise RuntimeError("on purpose")
"""


def serve(servd: Servd, log: str = "") -> ServdProcess:
    return servd(
        f"""
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        log = {{ {log} }}
        """,
        main_py=APP,
    ).ready()


def test_a_given_request_id_is_in_the_access_log_and_in_what_the_app_logs(servd: Servd) -> None:
    daemon = serve(servd)
    headers = {"x-request-id": "given-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    daemon.get("web", "/log", headers=headers)
    event = daemon.wait_for("request", request_id="given-1")
    assert event["trace_id"] == "a" * 32
    assert event["http.request.method"] == "GET"
    assert event["url.path"] == "/log"
    assert event["http.response.status_code"] == 200
    assert event["client.address"] == "127.0.0.1"
    assert event["service"] == "web"
    assert {"duration_ms", "worker", "pid", "generation", "timestamp"} <= event.keys()
    assert daemon.wait_for_line("from logging")["request_id"] == "given-1"
    (line,) = wait_until(
        lambda: [e for e in daemon.events if "from structlog" in e["event"]], "the app's own line"
    )
    assert json.loads(line["event"])["request_id"] == "given-1"


def test_an_id_is_made_where_none_is_given_and_each_request_has_its_own(servd: Servd) -> None:
    daemon = serve(servd)
    for path in ("/thread", "/thread", "/fail"):
        httpx.get(daemon.url("web") + path)
    events = wait_until(
        lambda: found if len(found := daemon.find("request")) == 3 else None, "three events"
    )
    ids = [event["request_id"] for event in events]
    assert len(set(ids)) == 3
    assert all(re.fullmatch("[0-9a-f]{22}", each) for each in ids)
    assert [e["request_id"] for e in daemon.lines("from a thread")] == ids[:2]
    assert events[2]["http.response.status_code"] == 500
    failed = next(e for e in daemon.events if "on purpose" in e.get("exception", ""))
    assert failed["request_id"] == ids[2]


def test_paths_are_skipped_and_requests_sampled_but_failures_are_always_logged(
    servd: Servd,
) -> None:
    daemon = serve(servd, 'skip_paths = ["/healthz"], sample = 0')
    with httpx.Client(base_url=daemon.url("web")) as client:
        for _ in range(10):
            client.get("/healthz")
            client.get("/log")
        client.get("/fail")
    daemon.wait_for("request", **{"url.path": "/fail"})
    assert len(daemon.find("request")) == 1


def test_a_sample_is_about_as_large_as_asked_for(servd: Servd) -> None:
    daemon = serve(servd, "sample = 0.5")
    with httpx.Client(base_url=daemon.url("web")) as client:
        for _ in range(200):
            client.get("/healthz")
        client.get("/fail")
    daemon.wait_for("request", **{"url.path": "/fail"})
    assert 50 < len(daemon.find("request")) < 150  # five deviations to either side, and more


def test_a_line_of_the_log_cannot_be_forged(servd: Servd) -> None:
    daemon = serve(servd)
    path = '/x%22,%20%22level%22:%20%22error%0A%1e{"event":"forged"}'
    httpx.get(daemon.url("web") + path, headers={"x-request-id": 'a", "b": "c'})
    event = daemon.wait_for("request")
    assert event["request_id"] == 'a", "b": "c'
    assert event["level"] == "info"
    assert not daemon.lines("forged")
