"""Routes that change what runs. Each responds once the change is applied or rolled back."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Header, Response
from pydantic import BaseModel, ConfigDict, Field

from servd.admin.dependencies import CurrentDaemon
from servd.admin.problem import Problem, ProblemError, documented, of_report
from servd.admin.routes_status import WELL, entity_tag, require_service
from servd.core.quick_dataclass import dataclass
from servd.daemon.reload.request import ReloadRequest
from servd.daemon.status import ReloadStatus, reload_status
from servd.daemon.upgrade.upgrader import UpgradeReport
from servd.daemon.view import DaemonView
from servd.plan.overrides import ScaleService, StartService, StopService, needed

MAX_WORKERS = 4096
"""Maximum workers of a service in a request."""

router = APIRouter()

_UNWELL = ("failed", "backoff", "degraded", "waiting")
_DOWN = ("failed", "backoff", "waiting")
_TAG = re.compile(r'(W/)?"([^"]*)"')

_FAILED = documented(
    _400="The body is not JSON",
    _409="Refused, or all changes were rolled back",
    _412="The state differs from If-Match",
    _422="Invalid",
)
_OF_SERVICE = {**documented(_404="Unknown service"), **_FAILED}


class Waiting(BaseModel):
    """Options of every action."""

    model_config = ConfigDict(extra="forbid")

    wait_drained: bool = Field(False, description="Respond once all old workers have stopped.")


class RollBody(Waiting):
    """Options of what replaces workers."""

    now: bool = Field(
        False,
        description="Cut the requests short that old workers answer, if two generations do. "
        "Otherwise a third one waits until one of them has, or its drain is over.",
    )


class ReloadBody(RollBody):
    """Options of a reload."""

    roll: bool = Field(False, description="Replace the workers of unchanged services too.")


class StopBody(Waiting):
    """Options of a stop."""

    wait_drained: bool = Field(True, description="Respond once all workers have stopped.")
    cascade: bool = Field(False, description="Stop dependents too.")


class ScaleBody(Waiting):
    """Options of a scale."""

    cascade: bool = Field(False, description="With 0 workers: stop dependents too.")

    workers: Annotated[int, Field(ge=0, le=MAX_WORKERS, strict=True)] | Literal["auto"] = Field(
        description="Number of workers; 0 stops the service, auto leaves it to the configuration."
    )


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of a request: the revisions that it accepts (None: any), and its answer."""

    seen: frozenset[str] | None
    response: Response


def caller(
    response: Response,
    if_match: Annotated[
        str | None,
        Header(description="The ETag of the expected status or plan; responds 412 if it differs."),
    ] = None,
) -> Caller:
    """Parses If-Match (RFC 9110, section 13.1.1): weak tags match nothing, `*` any state."""
    if if_match is None or if_match.strip() == "*":
        return Caller(None, response)
    tags = frozenset(tag for weak, tag in _TAG.findall(if_match) if not weak)
    return Caller(tags, response)


Called = Annotated[Caller, Depends(caller)]
MaybeReload = Annotated[ReloadBody | None, Body()]
MaybeRoll = Annotated[RollBody | None, Body()]
MaybeWait = Annotated[Waiting | None, Body()]
MaybeStop = Annotated[StopBody | None, Body()]


@router.post("/v1/reload", summary="Read the configuration and apply changes", responses=_FAILED)
async def reload(daemon: CurrentDaemon, by: Called, body: MaybeReload = None) -> ReloadStatus:
    asked = body or ReloadBody()
    request = ReloadRequest("the admin API", roll_all=asked.roll, now=asked.now, wants_report=True)
    return await _apply(daemon, request, asked, by)


@router.post(
    "/v1/gpus/{gpu}/release",
    summary="Let workers have a GPU again that had failed",
    status_code=204,
    responses=documented(_404="No GPU with this id or number is in quarantine"),
)
async def release(gpu: str, daemon: CurrentDaemon) -> None:
    if daemon.quarantine.release(gpu) is None:
        title = f'GPU "{gpu[:100]}" is not in quarantine'
        raise ProblemError(Problem(title=title, status=404))


@router.post("/v1/restart", summary="Replace the workers of every service", responses=_FAILED)
async def restart_all(daemon: CurrentDaemon, by: Called, body: MaybeRoll = None) -> ReloadStatus:
    asked = body or RollBody()
    request = ReloadRequest("restart of all", read=False, roll_all=True, now=asked.now)
    return await _apply(daemon, request, asked, by)


@router.post(
    "/v1/upgrade",
    summary="Replace the daemon with a new one",
    responses=documented(_409="Refused, or the new daemon failed and the old one continues"),
)
async def upgrade(daemon: CurrentDaemon) -> UpgradeReport:
    report = await asyncio.shield(daemon.upgrades.request())
    if report.error is not None:
        problem = Problem(
            title="The new servd cannot take over",
            status=409,
            detail=report.error,
            outcome=report.outcome,
            last_lines=list(report.last_lines),
        )
        raise ProblemError(problem)
    return report


@router.post(
    "/v1/services/{name}/restart",
    summary="Replace the workers of a service, or start it if it was stopped manually",
    responses=_OF_SERVICE,
)
async def restart(
    name: str, daemon: CurrentDaemon, by: Called, body: MaybeRoll = None
) -> ReloadStatus:
    require_service(daemon, name)
    asked = body or RollBody()
    overrides, file = daemon.reloader.desired.overrides, daemon.reloader.desired.declared
    stopped = any(each in overrides and overrides[each].stopped for each in needed(name, file))
    roll = _unwell(daemon, name) | {name}
    act = StartService(name) if stopped else None
    request = ReloadRequest(f"restart of {name}", read=False, roll=roll, act=act, now=asked.now)
    return await _apply(daemon, request, asked, by, name)


@router.post(
    "/v1/services/{name}/start",
    summary="Start a service that was stopped manually or is unhealthy",
    responses=_OF_SERVICE,
)
async def start(
    name: str, daemon: CurrentDaemon, by: Called, body: MaybeWait = None
) -> ReloadStatus:
    require_service(daemon, name)
    roll = _unwell(daemon, name)
    request = ReloadRequest(f"start of {name}", read=False, roll=roll, act=StartService(name))
    return await _apply(daemon, request, body or Waiting(), by, name)


@router.post("/v1/services/{name}/stop", summary="Keep a service stopped", responses=_OF_SERVICE)
async def stop(
    name: str, daemon: CurrentDaemon, by: Called, body: MaybeStop = None
) -> ReloadStatus:
    require_service(daemon, name)
    asked = body or StopBody()
    request = ReloadRequest(f"stop of {name}", read=False, act=StopService(name, asked.cascade))
    return await _apply(daemon, request, asked, by)


@router.post(
    "/v1/services/{name}/scale",
    summary="Change the number of workers of a service until the config changes it",
    responses=_OF_SERVICE,
)
async def scale(name: str, body: ScaleBody, daemon: CurrentDaemon, by: Called) -> ReloadStatus:
    require_service(daemon, name)
    workers = None if body.workers == "auto" else body.workers
    act = ScaleService(name, workers, body.cascade)
    body.wait_drained = body.wait_drained or workers == 0
    request = ReloadRequest(f"scale of {name}", read=False, act=act)
    return await _apply(daemon, request, body, by, name if workers != 0 else None)


def _unwell(daemon: DaemonView, name: str) -> frozenset[str]:
    """Returns which of the service and its dependencies must start again for it to be healthy."""
    services = daemon.supervisor.services
    chain = [each for each in needed(name, daemon.reloader.desired.declared) if each in services]
    found = {each for each in chain if services[each].state in _DOWN}
    if services[name].state in _UNWELL:
        found.add(name)
    return frozenset(each for each in found if services[each].plan.workers)


async def _until_well(daemon: DaemonView, name: str) -> None:
    """Waits until a service has started. Raises `ProblemError` if it is not healthy then."""
    service = daemon.supervisor.services.get(name)
    if service is None or service.state not in ("waiting", "starting"):
        return
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(service.milestones.settled.wait(), service.plan.start_seconds)
    if service.state not in WELL:
        title = f"{name} is {service.state}"
        raise ProblemError(Problem(title=title, status=409, detail=service.error, service=name))


async def _apply(
    daemon: DaemonView, request: ReloadRequest, asked: Waiting, by: Caller, name: str | None = None
) -> ReloadStatus:
    """Waits for the report, then for the service `name`; the action survives a disconnect.
    Raises `ProblemError` if it failed.
    """
    report = await asyncio.shield(daemon.reload(replace(request, seen=by.seen)))
    if asked.wait_drained and report.drains:
        await asyncio.wait(report.drains)
    if report.error is not None:
        raise ProblemError(of_report(report))
    by.response.headers["etag"] = entity_tag(daemon)
    status = reload_status(report)
    if name is not None:
        await _until_well(daemon, name)
    return status
