"""What the routes need of the application."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from servd.daemon.view import DaemonView


async def _daemon(request: Request) -> DaemonView:
    return cast("DaemonView", request.app.state.daemon)


CurrentDaemon = Annotated[DaemonView, Depends(_daemon)]
