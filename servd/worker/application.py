"""The application as Uvicorn runs it: adapted to ASGI 3, with servd's middleware around it."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from servd.wire.worker_spec import AppSpec
from servd.worker.asgi.access_log import AccessLog
from servd.worker.asgi.event_streams import EventStreams
from servd.worker.asgi.proxy import proxy_headers
from servd.worker.asgi.request_context import RequestContext
from servd.worker.events import EventWriter


def build_application(app: Any, spec: AppSpec, writer: EventWriter) -> EventStreams:
    """`app` with everything around it that the spec asks for, and nothing else."""
    application = as_asgi3(app, spec)
    if "servd.client" in sys.modules:
        application = RequestContext(application)
    if spec.access_log:
        application = AccessLog(application, writer, spec.skip_paths)
    if spec.proxy_trusted is not None:
        application = proxy_headers(application, spec.proxy_trusted)
    return EventStreams(application)


def as_asgi3(app: Any, spec: AppSpec) -> Any:
    """An ASGI 3 application, whichever interface `app` has."""
    interface = spec.interface if spec.interface != "auto" else interface_of(app)
    if interface == "wsgi":
        from a2wsgi import WSGIMiddleware

        return WSGIMiddleware(app, workers=spec.threads)
    if interface == "asgi2":
        from uvicorn.middleware.asgi2 import ASGI2Middleware

        return ASGI2Middleware(app)
    return app


def interface_of(app: Any) -> str:
    """`asgi3` or `asgi2`, told apart as Uvicorn does."""
    if inspect.isclass(app):
        return "asgi3" if hasattr(app, "__await__") else "asgi2"
    call = app if inspect.isfunction(app) else getattr(app, "__call__", None)  # noqa: B004
    return "asgi3" if inspect.iscoroutinefunction(call) else "asgi2"
