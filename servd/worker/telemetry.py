"""OpenTelemetry, where the environment of the service asks for it (the extra `servd[otel]`): spans
for requests and for calls of dependencies, by OpenTelemetry's own instrumentations, configured by
the standard OTEL_* variables.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Any

from servd.worker.events import EventWriter

ASKING = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_TRACES_EXPORTER",
)
"""Variables any of which asks for traces."""

FLUSH_SECONDS = 2.0
"""How long a worker that ends waits for its last spans to be sent."""

_DEEPEST = 50
"""Layers of middleware that are looked through."""

_DEFAULTS = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    # servd makes the spans of requests: those of frameworks would be the same once more
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "fastapi,starlette,asgi",
}


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(environ.get(name) for name in ASKING)


class Telemetry:
    """OpenTelemetry in this worker, set up before the app is loaded. Raises ImportError where it is
    not installed.
    """

    def __init__(self, service: str) -> None:
        os.environ.setdefault("OTEL_SERVICE_NAME", service)
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        from opentelemetry import trace
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.instrumentation.auto_instrumentation import initialize

        self._middleware = OpenTelemetryMiddleware
        self._span = trace.get_current_span
        initialize()

    def around(self, app: Any) -> Any:
        """`app` with a span for each of its requests. FastAPI makes its own, with their routes."""
        return app if _makes_its_own(app) else self._middleware(app)

    def unobserved(self, app: Any) -> Any:
        """`app` without spans: for the probes of the daemon."""
        from opentelemetry.instrumentation.utils import suppress_instrumentation

        async def call(scope: Any, receive: Any, send: Any) -> None:
            scope["fastapi.telemetry"] = None  # as FastAPI itself marks what is left out
            with suppress_instrumentation():
                await app(scope, receive, send)

        return call

    def trace_id(self) -> str:
        """The trace that the running code belongs to; empty for none."""
        context = self._span().get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else ""

    def end(self) -> None:
        """Sends what is left, for at most `FLUSH_SECONDS`."""
        from opentelemetry.trace import get_tracer_provider

        flush = getattr(get_tracer_provider(), "force_flush", None)
        if flush is not None:
            flush(int(FLUSH_SECONDS * 1000))


def begin(service: str, writer: EventWriter) -> Telemetry | None:
    """Sets OpenTelemetry up; None where it is not installed, which is logged."""
    try:
        return Telemetry(service)
    except ImportError as error:
        asked = next(name for name in ASKING if os.environ.get(name))
        message = f"{asked} is set, but OpenTelemetry is not installed: install servd[otel]"
        writer.event("warning", message, error=str(error))
        return None


def _makes_its_own(app: Any) -> bool:
    """Whether `app` is, perhaps inside middleware, a FastAPI that has telemetry built in."""
    if "fastapi" not in sys.modules or importlib.util.find_spec("fastapi.telemetry") is None:
        return False
    from fastapi import FastAPI

    for _ in range(_DEEPEST):
        if isinstance(app, FastAPI):
            return True
        app = getattr(app, "app", None)
    return False
