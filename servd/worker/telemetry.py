"""OpenTelemetry (the extra `otel`), if the standard OTEL_* variables ask for it: spans for
requests and calls to dependencies, made by OpenTelemetry's instrumentations.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Any

from servd.worker.events import EventWriter

TRACE_VARIABLES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_TRACES_EXPORTER",
)
"""Each of these variables enables traces."""

FLUSH_SECONDS = 2.0
"""Time limit for sending the last spans when a worker ends."""

_MAX_MIDDLEWARE_DEPTH = 50

_DEFAULTS = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    # servd makes the spans of requests: those of frameworks would be duplicates
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "fastapi,starlette,asgi",
}


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces."""
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(environ.get(name) for name in TRACE_VARIABLES)


class Telemetry:
    """OpenTelemetry in this worker. Make it before loading the app. Raises ImportError."""

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
        """Wraps `app` with a span per request, except FastAPI with built-in spans (and routes)."""
        return app if _has_own_spans(app) else self._middleware(app)

    def unobserved(self, app: Any) -> Any:
        """Wraps `app` without spans, for the daemon's probes."""
        from opentelemetry.instrumentation.utils import suppress_instrumentation

        async def call(scope: Any, receive: Any, send: Any) -> None:
            scope["fastapi.telemetry"] = None  # FastAPI's own mark for excluded requests
            with suppress_instrumentation():
                await app(scope, receive, send)

        return call

    def trace_id(self) -> str:
        """Returns the trace id of the running code, or an empty string."""
        context = self._span().get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else ""

    def end(self) -> None:
        """Sends the remaining spans, for at most `FLUSH_SECONDS`."""
        from opentelemetry.trace import get_tracer_provider

        flush = getattr(get_tracer_provider(), "force_flush", None)
        if flush is not None:
            flush(int(FLUSH_SECONDS * 1000))


def begin(service: str, writer: EventWriter) -> Telemetry | None:
    """Sets OpenTelemetry up. Logs a warning and returns None if it is not installed."""
    try:
        return Telemetry(service)
    except ImportError as error:
        asked = next(name for name in TRACE_VARIABLES if os.environ.get(name))
        message = (
            f"{asked} is set, but OpenTelemetry is not installed: install opentelemetry-distro"
        )
        writer.event("warning", message, error=str(error))
        return None


def _has_own_spans(app: Any) -> bool:
    """Whether `app`, possibly inside middleware, is a FastAPI with built-in telemetry."""
    if "fastapi" not in sys.modules or importlib.util.find_spec("fastapi.telemetry") is None:
        return False
    from fastapi import FastAPI

    for _ in range(_MAX_MIDDLEWARE_DEPTH):
        if isinstance(app, FastAPI):
            return True
        app = getattr(app, "app", None)
    return False
