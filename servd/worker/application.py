"""The application as Uvicorn runs it: adapted to ASGI 3, with servd's middleware around it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from servd.wire.shm_counters import Counters
from servd.wire.worker_spec import AppSpec
from servd.worker.asgi.access_log import AccessLog
from servd.worker.asgi.proxy import proxy_headers
from servd.worker.asgi.requests import Requests
from servd.worker.events import EventWriter
from servd.worker.telemetry import Telemetry
from servd.worker.threads import NotingExecutor


class Application(NamedTuple):
    """An app with what servd does around each of its requests.

    `whole` is what Uvicorn calls, `probed` the app alone, which the daemon's probes ask.
    """

    requests: Requests
    probed: Any
    whole: Any


class Outlets(NamedTuple):
    """Where a worker says what there is to say of its requests. `recycle` tells the daemon why the
    worker should be replaced.
    """

    writer: EventWriter
    counters: Counters
    recycle: Callable[[str], None]


def build_application(
    app: Any, spec: AppSpec, outlets: Outlets, telemetry: Telemetry | None
) -> Application:
    """Puts servd's own around `app`, and `telemetry` where there is any."""
    bare = as_asgi3(app, spec)
    access_log = None
    if spec.log.access:
        skipped = {spec.root_path + path for path in spec.log.skip_paths} | {*spec.log.skip_paths}
        access_log = AccessLog(outlets.writer, skipped, spec.log.sample)
    inner, probed = bare, bare
    if telemetry is not None:
        inner, probed = telemetry.around(bare), telemetry.unobserved(bare)
    requests = Requests(inner, spec, outlets.counters, access_log, outlets.recycle)
    if telemetry is not None:
        requests.trace_id = telemetry.trace_id
    whole: Any = requests
    if spec.proxy.headers:
        whole = proxy_headers(requests, spec.proxy.trusted)
    return Application(requests, probed, whole)


def as_asgi3(app: Any, spec: AppSpec) -> Any:
    """An ASGI 3 application, whichever interface `app` has."""
    interface = spec.interface if spec.interface != "auto" else interface_of(app)
    if interface == "wsgi":
        from a2wsgi import WSGIMiddleware

        adapted = WSGIMiddleware(app, workers=spec.threads)
        if spec.timeouts.request is not None or spec.timeouts.request_total is not None:
            adapted.executor = NotingExecutor(spec.threads, "servd-thread")
        return adapted
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
