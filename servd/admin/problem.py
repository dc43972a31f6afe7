"""Errors of the admin API: problem details (RFC 9457)."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from servd.core.errors import ConfigError
from servd.core.exhaustion import exhaustion_reason, is_exhaustion
from servd.daemon.reload.request import OutdatedError, ReloadReport
from servd.plan.overrides import RefusedError

MEDIA_TYPE = "application/problem+json"

Responses = dict[int | str, dict[str, Any]]
"""The documented answers of a route, for OpenAPI."""


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


class ProblemError(Exception):
    """Raised by a route to answer with a problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.title)


def documented(**reasons: str) -> Responses:
    """Documents problems, each with its reason: `documented(_404="No such service")`."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        int(status[1:]): {"model": Problem, "description": reason, "content": content}
        for status, reason in reasons.items()
    }


def install(app: FastAPI) -> None:
    """Installs handlers that answer every error of `app` with a problem."""

    @app.exception_handler(ProblemError)
    async def problem(_: Request, error: ProblemError) -> Response:
        return answer(error.problem)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        found = answer(Problem(title=str(error.detail), status=error.status_code))
        found.headers.update(error.headers or {})
        return found

    @app.exception_handler(RequestValidationError)
    async def not_valid(request: Request, error: RequestValidationError) -> Response:
        if "json" not in request.headers.get("content-type", "json"):
            title = "The content type is not JSON: send Content-Type: application/json"
            return answer(Problem(title=title, status=422))
        details = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        return answer(Problem(title="Invalid request", status=422, details=details))

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        hint = error.hint or "nothing was changed"
        return answer(Problem(title=str(error), status=409, detail=hint))

    @app.exception_handler(OSError)
    @app.exception_handler(RuntimeError)
    async def exhausted(_: Request, error: Exception) -> Response:
        if not is_exhaustion(error):
            raise error
        reason = exhaustion_reason(error)
        return answer(Problem(title="servd cannot respond now", status=503, detail=reason))

    @app.exception_handler(OutdatedError)
    async def outdated(_: Request, error: OutdatedError) -> Response:
        return answer(
            Problem(title=str(error), status=412, detail="fetch the state, then try again")
        )


def answer(problem: Problem) -> Response:
    """Returns the problem as an answer."""
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, problem.status, media_type=MEDIA_TYPE)


def of_report(report: ReloadReport) -> Problem:
    """Returns the problem of a failed reload."""
    invalid = report.outcome == "invalid"
    return Problem(
        title="Invalid configuration" if invalid else "All changes were rolled back",
        status=422 if invalid else 409,
        detail=report.error or "",
        outcome=report.outcome,
        service=report.service,
        details=list(report.details),
        last_lines=list(report.last_lines),
    )


def of_config(error: ConfigError) -> Problem:
    """Returns the problem of an invalid configuration."""
    return Problem(
        title="Invalid configuration",
        status=422,
        outcome="invalid",
        details=[diagnostic.summary() for diagnostic in error.diagnostics],
    )
