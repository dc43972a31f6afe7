"""Builds the FastAPI application of the admin API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

from servd._version import __version__
from servd.admin import routes_actions, routes_page, routes_status
from servd.admin.problem import documented, install
from servd.admin.streams import streaming
from servd.daemon.view import DaemonView

if TYPE_CHECKING:
    from servd.admin.metrics import Metrics


def build(daemon: DaemonView, metrics: Metrics) -> FastAPI:
    """Returns the application for one daemon."""
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
    app.state.daemon, app.state.metrics = daemon, metrics
    install(app)
    app.include_router(routes_page.router)
    app.include_router(routes_status.router)
    streaming(app, daemon)
    app.include_router(routes_actions.router)
    return app
