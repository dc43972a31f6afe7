"""Builds the FastAPI application of the admin API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

from servd._version import __version__
from servd.admin import routes_actions, routes_capacity, routes_page, routes_status
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
        description="Status and control of a servd daemon.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        responses=documented(
            _401="TCP only: the token is missing or wrong",
            _403="TCP only: the request comes from a page of another origin",
            _421="TCP only: unknown Host header",
        ),
        dependencies=[Depends(HTTPBearer(auto_error=False, description="TCP only."))],
    )
    app.state.daemon, app.state.metrics = daemon, metrics
    install(app)
    app.include_router(routes_page.router)
    app.include_router(routes_status.router)
    app.include_router(routes_capacity.router)
    streaming(app, daemon)
    app.include_router(routes_actions.router)
    return app
