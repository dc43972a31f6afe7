"""The admin API: what runs, what a reload would do, and doing it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Body, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from servd._version import __version__
from servd.daemon.reload import Report
from servd.daemon.reload import Request as ReloadRequest
from servd.daemon.status import ReloadStatus, ServiceStatus, Status, reload_status
from servd.errors import ConfigError
from servd.plan.render_changes import as_json

if TYPE_CHECKING:
    from servd.admin.metrics import Metrics
    from servd.daemon.daemon import Daemon

_WELL = ("ready", "completed", "rolling")


class Problem(BaseModel):
    """An error (RFC 9457, problem details)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    outcome: str | None = None
    service: str | None = None
    details: list[str] = []
    last_lines: list[str] = []


class RestartBody(BaseModel):
    """How to restart."""

    model_config = ConfigDict(extra="forbid")

    wait_drained: bool = Field(False, description="Answer once everything old has ended.")


class ReloadBody(RestartBody):
    """How to reload."""

    roll: bool = Field(False, description="Replace every service, though it did not change.")


class PlanAnswer(BaseModel):
    """What a reload would do now."""

    source: str
    changes: list[dict[str, Any]]
    restart_needed: list[str]
    warnings: list[str]


_PROBLEM = {"model": Problem, "content": {"application/problem+json": {}}}
_INVALID: dict[int | str, dict[str, Any]] = {422: {**_PROBLEM, "description": "Invalid"}}
_FAILED: dict[int | str, dict[str, Any]] = {
    409: {**_PROBLEM, "description": "Everything was undone"},
    **_INVALID,
}


class ProblemError(Exception):
    """An answer that is an error."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.title)


def build(daemon: Daemon, metrics: Metrics) -> FastAPI:
    """The application for one daemon."""
    app = FastAPI(
        title="servd",
        version=__version__,
        description="What runs, what a reload would do, and doing it.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    _errors(app)
    _probes(app, daemon)
    _reading(app, daemon)
    _measuring(app, metrics)
    _acting(app, daemon)
    return app


def _errors(app: FastAPI) -> None:
    @app.exception_handler(ProblemError)
    async def problem(_: Request, error: ProblemError) -> Response:
        return _answer(error.problem)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return _answer(Problem(title=str(error.detail), status=error.status_code))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        details = [
            f"{'.'.join(str(step) for step in item['loc'])}: {item['msg']}"
            for item in error.errors()
        ]
        return _answer(Problem(title="The request is not valid", status=422, details=details))


def _answer(problem: Problem) -> Response:
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        problem.status,
        media_type="application/problem+json",
    )


def _probes(app: FastAPI, daemon: Daemon) -> None:
    @app.get("/livez", response_class=PlainTextResponse, summary="Whether the daemon answers")
    async def livez() -> str:
        return "ok\n"

    @app.get(
        "/readyz",
        response_class=PlainTextResponse,
        summary="Whether every service is ready",
        responses={503: {"description": "Not ready"}},
    )
    async def readyz(
        verbose: Annotated[str | None, Query(description="List each service.")] = None,
        exclude: Annotated[
            list[str] | None, Query(description="Services that do not count.")
        ] = None,
    ) -> PlainTextResponse:
        lines, ready = _readiness(daemon, exclude or ())
        text = "".join(f"{line}\n" for line in lines) if verbose is not None else ""
        return PlainTextResponse(
            f"{text}{'ready' if ready else 'not ready'}\n", 200 if ready else 503
        )


def _readiness(daemon: Daemon, exclude: Collection[str]) -> tuple[list[str], bool]:
    """A line for each service with workers wanted, and whether all are ready."""
    lines: list[str] = []
    ready = daemon.state != "stopping"
    for service in daemon.supervisor.services.values():
        name = service.plan.name
        if service.plan.workers == 0 or name in exclude:
            continue
        well = service.state in _WELL
        ready = ready and well
        lines.append(f"[{'+' if well else '-'}] {name} {service.state}")
    return lines, ready


def _reading(app: FastAPI, daemon: Daemon) -> None:
    @app.get("/v1/status", summary="What runs")
    async def status() -> Status:
        return daemon.status()

    @app.get("/v1/plan", summary="What a reload would do now", responses=_INVALID)
    async def plan() -> PlanAnswer:
        try:
            planned = await daemon.reloader.plan()
        except ConfigError as error:
            raise ProblemError(_invalid(error)) from None
        return PlanAnswer(
            source="daemon",
            changes=as_json(planned.changes),
            restart_needed=list(daemon.reloader.restart_needed(planned.loaded.config)),
            warnings=[warning.summary() for warning in planned.loaded.warnings],
        )


def _measuring(app: FastAPI, metrics: Metrics) -> None:
    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        summary="Metrics of all workers of all services, as Prometheus reads them",
    )
    async def show(request: Request) -> Response:
        body, content_type = await metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})


def _acting(app: FastAPI, daemon: Daemon) -> None:
    @app.post("/v1/reload", summary="Read the configuration, apply what differs", responses=_FAILED)
    async def reload(body: Annotated[ReloadBody | None, Body()] = None) -> ReloadStatus:
        asked = body or ReloadBody()
        request = ReloadRequest("the admin API", roll_all=asked.roll)
        return await _made(daemon, request, wait_drained=asked.wait_drained)

    @app.post("/v1/restart", summary="Replace the workers of every service", responses=_FAILED)
    async def restart_all(body: Annotated[RestartBody | None, Body()] = None) -> ReloadStatus:
        asked = body or RestartBody()
        request = ReloadRequest("restart of all", read=False, roll_all=True)
        return await _made(daemon, request, wait_drained=asked.wait_drained)

    @app.post(
        "/v1/services/{name}/restart",
        summary="Replace the workers of a service",
        responses={404: {**_PROBLEM, "description": "No such service"}, **_FAILED},
    )
    async def restart(
        name: str, body: Annotated[RestartBody | None, Body()] = None
    ) -> ReloadStatus:
        asked = body or RestartBody()
        _known(daemon, name)
        request = ReloadRequest(f"restart of {name}", read=False, roll=frozenset({name}))
        return await _made(daemon, request, wait_drained=asked.wait_drained)

    @app.get(
        "/v1/services/{name}",
        summary="One service",
        responses={404: {**_PROBLEM, "description": "No such service"}},
    )
    async def service(name: str) -> ServiceStatus:
        _known(daemon, name)
        return next(s for s in daemon.services_status() if s.name == name)


def _known(daemon: Daemon, name: str) -> None:
    if name not in daemon.supervisor.services:
        names = ", ".join(sorted(daemon.supervisor.services))
        raise ProblemError(
            Problem(title=f'there is no service "{name}"', status=404, detail=f"there is: {names}")
        )


async def _made(daemon: Daemon, request: ReloadRequest, *, wait_drained: bool) -> ReloadStatus:
    """The reload's report, once it is over; a failure is an error."""
    report = await asyncio.shield(daemon.reload(request))
    if wait_drained and report.drains:
        await asyncio.wait(report.drains)
    if report.error is not None:
        raise ProblemError(_failed(report))
    return reload_status(report)


def _failed(report: Report) -> Problem:
    invalid = report.outcome == "invalid"
    return Problem(
        title="The configuration is not valid" if invalid else "Everything was undone",
        status=422 if invalid else 409,
        detail=report.error or "",
        outcome=report.outcome,
        service=report.service,
        details=list(report.details),
        last_lines=list(report.last_lines),
    )


def _invalid(error: ConfigError) -> Problem:
    return Problem(
        title="The configuration is not valid",
        status=422,
        outcome="invalid",
        details=[diagnostic.summary() for diagnostic in error.diagnostics],
    )
