"""The admin API: what runs, what a reload would do, and doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

from servd._version import __version__
from servd.admin.problem import documented, install
from servd.admin.routes_actions import acting
from servd.admin.routes_page import showing
from servd.admin.routes_status import measuring, probes, reading
from servd.admin.streams import streaming

if TYPE_CHECKING:
    from servd.admin.metrics import Metrics
    from servd.daemon.admin_protocol import DaemonView


def build(daemon: DaemonView, metrics: Metrics) -> FastAPI:
    """The application for one daemon."""
    app = FastAPI(
        title="servd",
        version=__version__,
        description="What runs, what a reload would do, and doing it.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        responses=documented(
            _401="Over TCP: no token, or a wrong one",
            _403="Over TCP: asked for by a page of another origin",
            _421="Over TCP: another Host",
        ),
        dependencies=[Depends(HTTPBearer(auto_error=False, description="Over TCP alone."))],
    )
    install(app)
    showing(app)
    probes(app, daemon)
    reading(app, daemon)
    measuring(app, metrics)
    streaming(app, daemon)
    acting(app, daemon)
    return app
