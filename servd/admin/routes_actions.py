"""What the admin API can be told to do."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from fastapi import Body, Depends, FastAPI, Header, Response
from pydantic import BaseModel, ConfigDict, Field

from servd.admin.problem import Problem, ProblemError, documented, of_report
from servd.admin.routes_status import WELL, entity_tag, known
from servd.daemon.reload.request import ReloadRequest
from servd.daemon.status import ReloadStatus, reload_status
from servd.daemon.upgrade.upgrader import UpgradeReport
from servd.plan.overrides import Scale, Start, Stop, needed

if TYPE_CHECKING:
    from servd.daemon.admin_protocol import DaemonView

MOST_WORKERS = 4096
"""Workers of one service that can be asked for."""

_NOT_WELL = ("failed", "backoff", "degraded", "waiting")
_FAR_FROM_WELL = ("failed", "backoff", "waiting")
_TAG = re.compile(r'(W/)?"([^"]*)"')

_FAILED = documented(
    _400="The body is no JSON",
    _409="Refused, or everything was undone",
    _412="If-Match names another state",
    _422="Invalid",
)
_OF_SERVICE = {**documented(_404="No such service"), **_FAILED}


class Waiting(BaseModel):
    """What every act can be told."""

    model_config = ConfigDict(extra="forbid")

    wait_drained: bool = Field(False, description="Answer once everything old has ended.")


class ReloadBody(Waiting):
    """How to reload."""

    roll: bool = Field(False, description="Replace every service, though it did not change.")


class StopBody(Waiting):
    """How to stop."""

    wait_drained: bool = Field(True, description="Answer once all workers have ended.")
    cascade: bool = Field(False, description="Stop what needs it too.")


class ScaleBody(Waiting):
    """How many workers."""

    cascade: bool = Field(False, description="With no workers: stop what needs it too.")

    workers: int = Field(
        ge=0, le=MOST_WORKERS, strict=True, description="Workers; 0 stops the service."
    )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the revisions that they have seen (None: it is all the same to them), and what they
    are answered.
    """

    seen: frozenset[str] | None
    response: Response


def caller(
    response: Response,
    if_match: Annotated[
        str | None,
        Header(description="The ETag of the status that this is about; another state: 412."),
    ] = None,
) -> Caller:
    """By RFC 9110, section 13.1.1: weak tags match nothing, `*` any state."""
    if if_match is None or if_match.strip() == "*":
        return Caller(None, response)
    tags = frozenset(tag for weak, tag in _TAG.findall(if_match) if not weak)
    return Caller(tags, response)


Called = Annotated[Caller, Depends(caller)]
Whole = Annotated[ReloadBody | None, Body()]
Wait = Annotated[Waiting | None, Body()]
Halting = Annotated[StopBody | None, Body()]


def acting(app: FastAPI, daemon: DaemonView) -> None:
    """The routes that change what runs. Each answers once it is done, or undone."""
    _all_services(app, daemon)
    _one_service(app, daemon)


def _all_services(app: FastAPI, daemon: DaemonView) -> None:
    @app.post("/v1/reload", summary="Read the configuration, apply what differs", responses=_FAILED)
    async def reload(by: Called, body: Whole = None) -> ReloadStatus:
        asked = body or ReloadBody()
        return await _made(daemon, ReloadRequest("the admin API", roll_all=asked.roll), asked, by)

    @app.post("/v1/restart", summary="Replace the workers of every service", responses=_FAILED)
    async def restart_all(by: Called, body: Wait = None) -> ReloadStatus:
        request = ReloadRequest("restart of all", read=False, roll_all=True)
        return await _made(daemon, request, body or Waiting(), by)

    @app.post(
        "/v1/upgrade",
        summary="Replace the daemon by one that is started anew",
        responses=documented(_409="Refused, or the new one cannot run: the old one goes on"),
    )
    async def upgrade() -> UpgradeReport:
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


def _one_service(app: FastAPI, daemon: DaemonView) -> None:
    @app.post(
        "/v1/services/{name}/restart",
        summary="Replace the workers of a service; start it where it was stopped by hand",
        responses=_OF_SERVICE,
    )
    async def restart(name: str, by: Called, body: Wait = None) -> ReloadStatus:
        known(daemon, name)
        overrides, file = daemon.reloader.desired.overrides, daemon.reloader.desired.declared
        stopped = any(each in overrides and overrides[each].stopped for each in needed(name, file))
        roll = _unwell(daemon, name) | {name}
        act = Start(name) if stopped else None
        request = ReloadRequest(f"restart of {name}", read=False, roll=roll, act=act)
        status = await _made(daemon, request, body or Waiting(), by)
        await _until_well(daemon, name)
        return status

    @app.post(
        "/v1/services/{name}/start",
        summary="Start a service that was stopped by hand, or is not well",
        responses=_OF_SERVICE,
    )
    async def start(name: str, by: Called, body: Wait = None) -> ReloadStatus:
        known(daemon, name)
        roll = _unwell(daemon, name)
        request = ReloadRequest(f"start of {name}", read=False, roll=roll, act=Start(name))
        status = await _made(daemon, request, body or Waiting(), by)
        await _until_well(daemon, name)
        return status

    @app.post("/v1/services/{name}/stop", summary="Keep a service stopped", responses=_OF_SERVICE)
    async def stop(name: str, by: Called, body: Halting = None) -> ReloadStatus:
        known(daemon, name)
        asked = body or StopBody()
        request = ReloadRequest(f"stop of {name}", read=False, act=Stop(name, asked.cascade))
        return await _made(daemon, request, asked, by)

    @app.post(
        "/v1/services/{name}/scale",
        summary="Give a service another number of workers, until the file changes it",
        responses=_OF_SERVICE,
    )
    async def scale(name: str, body: ScaleBody, by: Called) -> ReloadStatus:
        known(daemon, name)
        act = Scale(name, body.workers, body.cascade)
        body.wait_drained = body.wait_drained or not body.workers
        request = ReloadRequest(f"scale of {name}", read=False, act=act)
        status = await _made(daemon, request, body, by)
        if body.workers:
            await _until_well(daemon, name)
        return status


def _unwell(daemon: DaemonView, name: str) -> frozenset[str]:
    """What of a service and all that it needs has to be started anew for it to be well."""
    services = daemon.supervisor.services
    chain = [each for each in needed(name, daemon.reloader.desired.declared) if each in services]
    found = {each for each in chain if services[each].state in _FAR_FROM_WELL}
    if services[name].state in _NOT_WELL:
        found.add(name)
    return frozenset(each for each in found if services[each].plan.workers)


async def _until_well(daemon: DaemonView, name: str) -> None:
    """Waits for a service that is still about to start. Raises `ProblemError` where it does not."""
    service = daemon.supervisor.services.get(name)
    if service is None or service.state not in ("waiting", "starting"):
        return
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(service.milestones.settled.wait(), service.plan.startup)
    if service.state not in WELL:
        title = f"{name} is {service.state}"
        raise ProblemError(Problem(title=title, status=409, detail=service.error, service=name))


async def _made(
    daemon: DaemonView, request: ReloadRequest, asked: Waiting, by: Caller
) -> ReloadStatus:
    """The report, once it is over; a failure is an error. It is carried out even where whoever
    asked goes away.
    """
    report = await asyncio.shield(daemon.reload(replace(request, seen=by.seen)))
    if asked.wait_drained and report.drains:
        await asyncio.wait(report.drains)
    if report.error is not None:
        raise ProblemError(of_report(report))
    by.response.headers["etag"] = entity_tag(daemon)
    return reload_status(report)
