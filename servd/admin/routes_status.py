"""What can be asked of the admin API."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from servd.admin.problem import Problem, ProblemError, documented, of_config
from servd.config.dump import effective
from servd.core.errors import ConfigError
from servd.daemon.status import ServiceStatus, Status
from servd.plan.render_changes import Row, change_rows

if TYPE_CHECKING:
    from servd.admin.metrics import Metrics
    from servd.daemon.admin_protocol import DaemonView

WELL = ("ready", "completed", "rolling")
"""States of a service that a client is answered in, or that has done what it should."""


class ByHandAnswer(BaseModel):
    """A number of workers that was set by hand and that a reload leaves as it is."""

    service: str
    workers: int
    file: int


class PlanAnswer(BaseModel):
    """What a reload would do now. `by_hand` is what differs from the file, and will."""

    source: str
    changes: list[Row]
    by_hand: list[ByHandAnswer]
    restart_needed: list[str]
    warnings: list[str]


def entity_tag(daemon: DaemonView) -> str:
    """Of what runs: another after everything that was applied (RFC 9110, section 8.8.3)."""
    return f'"{daemon.reloader.revision}"'


def known(daemon: DaemonView, name: str) -> None:
    """Raises `ProblemError` where there is no such service."""
    if name not in daemon.supervisor.services:
        names = ", ".join(sorted(daemon.supervisor.services))
        problem = Problem(
            title=f'there is no service "{name}"', status=404, detail=f"there is: {names}"
        )
        raise ProblemError(problem)


def probes(app: FastAPI, daemon: DaemonView) -> None:
    """The routes for load balancers and the like."""

    @app.get("/livez", response_class=PlainTextResponse, summary="Whether the daemon answers")
    async def livez() -> str:
        return "ok\n"

    @app.get(
        "/readyz",
        response_class=PlainTextResponse,
        summary="Whether every service is ready",
        responses={
            503: {"description": "Not ready", "content": {"text/plain": {}}},
            **documented(_422="Invalid"),
        },
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


def _readiness(daemon: DaemonView, exclude: Collection[str]) -> tuple[list[str], bool]:
    """A line for each service with workers wanted, and whether all are ready."""
    lines: list[str] = []
    ready = daemon.state != "stopping"
    for service in daemon.supervisor.services.values():
        name = service.plan.name
        if service.plan.workers == 0 or name in exclude:
            continue
        well = service.state in WELL
        ready = ready and well
        lines.append(f"[{'+' if well else '-'}] {name} {service.state}")
    return lines, ready


def reading(app: FastAPI, daemon: DaemonView) -> None:
    """The routes that show what runs, and what would."""

    @app.get(
        "/v1/status",
        summary="What runs",
        description="The ETag stands for what shall run: it is another after each reload that was"
        " applied and whatever was done by hand, and is meant for If-Match. What is measured is"
        " always fresh.",
    )
    async def status(response: Response) -> Status:
        response.headers["etag"] = entity_tag(daemon)
        return daemon.status()

    @app.get(
        "/v1/services/{name}",
        summary="One service",
        responses=documented(_404="No such service", _422="Invalid"),
    )
    async def service(name: str) -> ServiceStatus:
        known(daemon, name)
        return next(s for s in daemon.services_status() if s.name == name)

    @app.get(
        "/v1/config",
        summary="The configuration in force, secrets masked",
        responses=documented(_422="Invalid"),
    )
    async def config(
        everything: Annotated[
            bool, Query(alias="all", description="Keys that have their default too.")
        ] = False,
    ) -> dict[str, Any]:
        return effective(daemon.reloader.desired.loaded, everything=everything)

    @app.get(
        "/v1/plan",
        summary="What a reload would do now",
        responses=documented(_422="The configuration is not valid"),
    )
    async def plan() -> PlanAnswer:
        try:
            planned = await daemon.reloader.plan()
        except ConfigError as error:
            raise ProblemError(of_config(error)) from None
        desired = planned.desired
        shall = desired.plan.by_name
        config = desired.loaded.config
        return PlanAnswer(
            source="daemon",
            changes=change_rows(planned.changes),
            by_hand=[
                ByHandAnswer(service=s.name, workers=shall[s.name].workers, file=s.workers)
                for s in desired.declared.services
                if s.name in desired.overrides
            ],
            restart_needed=list(daemon.reloader.restart_needed(config)),
            warnings=[warning.summary() for warning in desired.loaded.warnings],
        )


def measuring(app: FastAPI, metrics: Metrics) -> None:
    """The route for Prometheus."""

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        summary="Metrics of all workers of all services, as Prometheus reads them",
        responses={
            200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}},
        },
    )
    async def show(request: Request) -> Response:
        body, content_type = await metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})
