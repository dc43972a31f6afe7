"""OpenTelemetry, where the environment of the service asks for it (the extra `servd[otel]`): spans
for requests and for calls of dependencies, by OpenTelemetry's own instrumentations, configured by
the standard OTEL_* variables.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from servd.worker.asgi.request import current
from servd.worker.events import EventWriter

ASKING = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_TRACES_EXPORTER",
)
"""Variables any of which asks for traces."""

FLUSH_SECONDS = 2.0
"""How long a worker that ends waits for its last spans to be sent."""

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


def begin(service: str, writer: EventWriter) -> Callable[[Any], Any] | None:
    """Sets OpenTelemetry up, before the app is loaded. Returns what wraps the app; None where
    OpenTelemetry is not installed, which is logged.
    """
    os.environ.setdefault("OTEL_SERVICE_NAME", service)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.instrumentation.auto_instrumentation import initialize
    except ImportError as error:
        asked = next(name for name in ASKING if os.environ.get(name))
        message = f"{asked} is set, but OpenTelemetry is not installed: install servd[otel]"
        writer.event("warning", message, error=str(error))
        return None
    initialize()
    return lambda app: OpenTelemetryMiddleware(Traced(app))


class Traced:
    """Lets the request know the trace that OpenTelemetry has put it into."""

    def __init__(self, app: Any) -> None:
        from opentelemetry.trace import get_current_span

        self.app = app
        self._span = get_current_span

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Runs the app."""
        request = current.get()
        context = self._span().get_span_context()
        if request is not None and context.is_valid:
            request.trace_id = f"{context.trace_id:032x}"
        await self.app(scope, receive, send)


def end() -> None:
    """Sends what is left, for at most `FLUSH_SECONDS`."""
    from opentelemetry.trace import get_tracer_provider

    flush = getattr(get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush(int(FLUSH_SECONDS * 1000))
