"""OpenTelemetry: spans reach a real receiver of OTLP over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.harness import Servd, ServdProcess, free_port, wait_until

GATEWAY = """
    import servd
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/call")
    async def call():
        return (await servd.depends("backend").get("/answer")).json()
"""
BACKEND = """
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/answer")
    async def answer():
        return {"answer": 42}

    @app.get("/healthz")
    async def healthz():
        return {}
"""
CONFIG = """
    [defaults]
    env = { OTEL_EXPORTER_OTLP_ENDPOINT = "${{COLLECTOR}}", OTEL_BSP_SCHEDULE_DELAY = "100" }
    [services.backend]
    app = "backend:app"
    health = {{ path = "/healthz", interval = "100ms" }}
    [services.gateway]
    app = "gateway:app"
    listen = "127.0.0.1:0"
    depends_on = ["backend"]
"""


class Collector(ThreadingHTTPServer):
    """Receives spans, by service."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.spans: dict[str, list[Span]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans.setdefault(named["service.name"], []).extend(scope.spans)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        assert self.path == "/v1/traces"
        self.server.take(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def serve(servd: Servd, collector: str) -> ServdProcess:
    config = CONFIG.replace("{{", "{").replace("}}", "}")
    return servd(
        config, environ={"COLLECTOR": collector}, gateway_py=GATEWAY, backend_py=BACKEND
    ).ready()


def test_a_request_and_the_call_that_it_makes_are_one_trace(
    servd: Servd, collector: Collector
) -> None:
    daemon = serve(servd, collector.url)
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    assert daemon.get("gateway", "/call", headers=headers).json() == {"answer": 42}

    def spans(service: str, kind: int) -> list[Span]:
        return [s for s in collector.spans.get(service, []) if s.kind == kind]

    wait_until(lambda: spans("backend", Span.SPAN_KIND_SERVER), "the span of the backend")
    wait_until(lambda: spans("gateway", Span.SPAN_KIND_SERVER), "the span of the gateway")
    (request,) = spans("gateway", Span.SPAN_KIND_SERVER)
    (call,) = spans("gateway", Span.SPAN_KIND_CLIENT)
    (answer,) = spans("backend", Span.SPAN_KIND_SERVER)
    assert {span.trace_id.hex() for span in (request, call, answer)} == {"a" * 32}
    assert request.parent_span_id.hex() == "b" * 16
    assert call.parent_span_id in {span.span_id for span in collector.spans["gateway"]}
    assert answer.parent_span_id == call.span_id
    logged = daemon.wait_for("request", service="backend")
    assert logged["trace_id"] == "a" * 32
    assert {span.name for span in collector.spans["backend"]}.isdisjoint({"GET /healthz"})


def test_a_trace_that_begins_here_is_in_the_access_log(servd: Servd, collector: Collector) -> None:
    daemon = serve(servd, collector.url)
    daemon.get("gateway", "/call")
    ids = {daemon.wait_for("request", service=name)["trace_id"] for name in ("gateway", "backend")}
    assert len(ids) == 1
    assert len(ids.pop()) == 32


def test_a_worker_sends_its_last_spans_before_it_ends(servd: Servd, collector: Collector) -> None:
    config = CONFIG.replace("{{", "{").replace("}}", "}").replace('= "100"', '= "60000"')
    daemon = servd(
        config, environ={"COLLECTOR": collector.url}, gateway_py=GATEWAY, backend_py=BACKEND
    ).ready()
    daemon.get("gateway", "/call")
    assert not collector.spans
    assert daemon.stop() == 0
    assert {span.kind for span in collector.spans["gateway"]} >= {Span.SPAN_KIND_SERVER}


def test_a_collector_that_is_down_delays_nothing_for_long(servd: Servd) -> None:
    daemon = serve(servd, f"http://127.0.0.1:{free_port()}")
    assert daemon.get("gateway", "/call").status_code == 200
    assert daemon.stop() == 0
    assert not daemon.find("worker killed")
