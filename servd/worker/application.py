"""Builds the application that Uvicorn runs: the app as ASGI 3, inside servd's middleware."""

from __future__ import annotations

from typing import Any, NamedTuple

from servd.wire.worker_spec import AppSpec
from servd.worker.asgi.access_log import AccessLog
from servd.worker.asgi.proxy import proxy_headers
from servd.worker.asgi.requests import Requests, current_is_over
from servd.worker.interface import interface_of
from servd.worker.reporter import Reporter
from servd.worker.telemetry import Telemetry
from servd.worker.threads import TrackingExecutor


class Application(NamedTuple):
    """An app inside servd's middleware (`whole`), and alone for the daemon's probes (`probed`)."""

    requests: Requests
    probed: Any
    whole: Any


def build_application(
    app: Any, spec: AppSpec, reporter: Reporter, telemetry: Telemetry | None
) -> Application:
    """Puts servd's middleware, and `telemetry` if any, around `app`."""
    bare = as_asgi3(app, spec)
    access_log = None
    if spec.log.access:
        skipped = {spec.root_path + path for path in spec.log.skip_paths} | {*spec.log.skip_paths}
        access_log = AccessLog(reporter.writer, skipped, spec.log.sample)
    inner, probed, trace_id = bare, bare, None
    if telemetry is not None:
        inner, probed = telemetry.around(bare), telemetry.unobserved(bare)
        trace_id = telemetry.trace_id
    requests = Requests(inner, spec, reporter, access_log, trace_id)
    whole = proxy_headers(requests, spec.proxy.trusted) if spec.proxy.headers else requests
    return Application(requests, probed, whole)


def as_asgi3(app: Any, spec: AppSpec) -> Any:
    """Adapts `app` to ASGI 3. Raises `NotAnAppError`."""
    interface = spec.interface if spec.interface != "auto" else interface_of(app)
    if interface == "wsgi":
        from servd.worker.wsgi import WSGIAdapter

        pool = TrackingExecutor(spec.threads, "servd-thread")
        return WSGIAdapter(app, pool, current_is_over)
    if interface == "asgi2":
        from uvicorn.middleware.asgi2 import ASGI2Middleware

        return ASGI2Middleware(app)
    return app
