"""The application as Uvicorn runs it: adapted to ASGI 3, with servd's middleware around it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from servd.wire.block import Counters
from servd.wire.worker_spec import AppSpec
from servd.worker.asgi.access_log import AccessLog
from servd.worker.asgi.proxy import proxy_headers
from servd.worker.asgi.requests import Requests
from servd.worker.events import EventWriter


def build_application(
    app: Any,
    spec: AppSpec,
    writer: EventWriter,
    counters: Counters,
    recycle: Callable[[str], None],
) -> tuple[Requests, Any]:
    """What servd does around every request of `app`, and the application as Uvicorn calls it."""
    access_log = None
    if spec.access_log:
        access_log = AccessLog(writer, spec.skip_paths, spec.log_sample)
    requests = Requests(as_asgi3(app, spec), spec, counters, access_log, recycle)
    if spec.proxy_trusted is None:
        return requests, requests
    return requests, proxy_headers(requests, spec.proxy_trusted)


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
