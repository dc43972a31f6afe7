"""Routes that show the state, the configuration, the plan and the metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from servd.admin.dependencies import CurrentDaemon
from servd.admin.problem import Problem, ProblemError, documented, of_config
from servd.config.effective import effective
from servd.core.errors import ConfigError
from servd.daemon.gpus.listing import GpusStatus, gpus_status
from servd.daemon.gpus.usage import usage_of
from servd.daemon.metrics.history import INTERVAL_SECONDS
from servd.daemon.status import ServiceStatus, Status
from servd.daemon.view import DaemonView
from servd.plan.overrides import EndedOverride
from servd.plan.render_changes import Row, SettingRow, change_rows

WELL = ("ready", "completed", "exited", "rolling")
"""States of a service that serves its clients, or of a task that has succeeded."""

router = APIRouter()


class ByHandAnswer(BaseModel):
    """A manual number of workers that a reload keeps."""

    service: str
    workers: int
    file: int


class PlanAnswer(BaseModel):
    """What a reload would do now: to services (`changes`) and to the daemon itself (`settings`).
    `by_hand` are manual changes that the reload keeps, `by_hand_ends` those that it ends. `etag`
    identifies this plan: a reload with it in If-Match applies exactly this plan or nothing.
    """

    etag: str
    source: str
    changes: list[Row]
    settings: list[SettingRow]
    by_hand: list[ByHandAnswer]
    by_hand_ends: list[EndedOverride]
    restart_needed: list[str]
    warnings: list[str]


class ServiceHistory(BaseModel):
    """Samples of one app, oldest first; null where nothing was measured. The rates are requests per
    second: all, and those answered with 4xx and 5xx. Each covers the ten seconds before it.
    """

    rps: list[float | None]
    rps_4xx: list[float | None]
    rps_5xx: list[float | None]
    p99_ms: list[float | None]


class HistoryAnswer(BaseModel):
    """The samples of all apps. The last of each list has the number `newest`."""

    interval_seconds: float
    newest: int
    services: dict[str, ServiceHistory]


def entity_tag(daemon: DaemonView) -> str:
    """Returns the ETag of the applied state (RFC 9110, section 8.8.3); every change renews it."""
    return f'"{daemon.reloader.revision}"'


def require_service(daemon: DaemonView, name: str) -> None:
    """Raises `ProblemError` if the service is unknown."""
    if name not in daemon.supervisor.services:
        names = ", ".join(sorted(daemon.supervisor.services))
        title = f'unknown service "{name}"'
        raise ProblemError(Problem(title=title, status=404, detail=f"Services: {names}"))


@router.get("/livez", response_class=PlainTextResponse, summary="Whether the daemon responds")
async def livez() -> str:
    return "ok\n"


@router.get(
    "/readyz",
    response_class=PlainTextResponse,
    summary="Whether every service is ready",
    description="Services that run elsewhere are shown, and do not count: they would take every"
    " host out of a load balancer at once. What needs one waits for it at its start.",
    responses={
        503: {"description": "Not ready", "content": {"text/plain": {}}},
        **documented(_422="Invalid"),
    },
)
async def readyz(
    daemon: CurrentDaemon,
    verbose: Annotated[str | None, Query(description="List each service.")] = None,
    exclude: Annotated[list[str] | None, Query(description="Services to ignore.")] = None,
) -> PlainTextResponse:
    services = daemon.supervisor.services.values()
    counted = [s for s in services if s.plan.workers and s.plan.name not in (exclude or ())]
    here = [s for s in counted if s.plan.external is None]  # others do not take this host out
    ready = daemon.state != "stopping" and all(s.state in WELL for s in here)
    text = (
        ""
        if verbose is None
        else "".join(
            f"[{'+' if s.state in WELL else '-'}] {s.plan.name} {s.state}\n" for s in counted
        )
    )
    return PlainTextResponse(f"{text}{'ready' if ready else 'not ready'}\n", 200 if ready else 503)


@router.get(
    "/v1/status",
    summary="Status of the daemon and its services",
    description="The ETag, for use in If-Match, identifies the desired state: it changes with each"
    " applied reload and each manual change. Measured values are current in every response.",
)
async def status(response: Response, daemon: CurrentDaemon) -> Status:
    response.headers["etag"] = entity_tag(daemon)
    return daemon.status()


@router.get(
    "/v1/gpus",
    summary="The GPUs of the machine, and who holds their memory",
    description="Measured every second while a service has GPUs; else the driver is asked now.",
)
async def gpus(daemon: CurrentDaemon) -> GpusStatus:
    answer = await daemon.gpus.answer()
    owner_of = usage_of(answer.snapshot, daemon.supervisor).owner
    return gpus_status(answer, owner_of, daemon.supervisor.context.workers.gpus.quarantine)


@router.get(
    "/v1/history",
    summary="Request rates and latencies of the last ten minutes",
    description="One sample every five seconds, of every app. A daemon that replaces another"
    " starts again.",
    responses=documented(_422="Invalid"),
)
async def history(
    daemon: CurrentDaemon,
    after: Annotated[
        int, Query(ge=0, description="Only samples after this number (`newest` of an answer).")
    ] = 0,
) -> HistoryAnswer:
    return HistoryAnswer(
        interval_seconds=INTERVAL_SECONDS,
        newest=daemon.history.newest,
        services={
            name: ServiceHistory.model_validate(figures)
            for name, figures in daemon.history.after(after).items()
        },
    )


@router.get(
    "/v1/services/{name}",
    summary="Status of one service",
    responses=documented(_404="Unknown service", _422="Invalid"),
)
async def service(name: str, daemon: CurrentDaemon) -> ServiceStatus:
    require_service(daemon, name)
    return next(s for s in daemon.services_status() if s.name == name)


@router.get(
    "/v1/config",
    summary="The current configuration with secrets masked",
    responses=documented(_422="Invalid"),
)
async def config(
    daemon: CurrentDaemon,
    everything: Annotated[
        bool, Query(alias="all", description="Include keys that have their default value.")
    ] = False,
) -> dict[str, Any]:
    return effective(daemon.reloader.desired.loaded, everything=everything)


@router.get(
    "/v1/plan",
    summary="What a reload would do now",
    responses=documented(_422="Invalid configuration"),
)
async def plan(daemon: CurrentDaemon, response: Response, roll: bool = False) -> PlanAnswer:
    try:
        planned = await daemon.reloader.plan(roll=roll)
    except ConfigError as error:
        raise ProblemError(of_config(error)) from None
    shall = planned.desired.plan.by_name
    response.headers["etag"] = f'"{planned.tag}"'
    return PlanAnswer(
        etag=planned.tag,
        source="daemon",
        changes=change_rows(planned.changes),
        settings=list(daemon.reloader.settings(planned.desired.loaded)),
        by_hand=[
            ByHandAnswer(service=s.name, workers=shall[s.name].workers, file=s.workers)
            for s in planned.desired.declared.services
            if s.name in planned.desired.overrides
        ],
        by_hand_ends=list(planned.by_hand_ends),
        restart_needed=list(daemon.reloader.restart_needed(planned.desired.loaded.config)),
        warnings=[
            warning.summary() for warning in (*planned.desired.loaded.warnings, *planned.warnings)
        ],
    )


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    summary="Metrics of all workers of all services in Prometheus format",
    responses={200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}}},
)
async def show(request: Request) -> Response:
    metrics = request.app.state.metrics
    body, content_type = await metrics.render(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})
