"""The daemon's state as values, for whoever asks: the shape of `GET /v1/status`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from servd.daemon.reload import Report
from servd.daemon.usage import CpuMeter
from servd.plan.render_changes import as_json
from servd.supervisor import memory
from servd.supervisor.exits import Exit
from servd.supervisor.generation import Generation
from servd.supervisor.process import WorkerProcess
from servd.supervisor.service import Service, State
from servd.wire.block import IN_FLIGHT


@dataclass(frozen=True, slots=True)
class ConfigStatus:
    """The configuration in force. `generation` moves with every reload that was applied."""

    path: str
    digest: str
    generation: int
    loaded_at: str


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """What became of a reload. `details` are all mistakes of an invalid configuration,
    `last_lines` what a failing worker wrote last, `since` is when what is in force was applied.
    """

    outcome: str
    at: str
    since: str
    why: str
    seconds: float
    changes: list[dict[str, Any]]
    error: str | None
    service: str | None
    details: list[str]
    last_lines: list[str]
    restart_needed: list[str]


@dataclass(frozen=True, slots=True)
class WorkerCounts:
    """How many workers there should be, and are."""

    desired: int
    ready: int


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One worker of the current generation. What is not measured is null."""

    pid: int
    worker: int
    generation: int
    state: str
    started_at: str
    rss_bytes: int | None
    cpu_percent: float | None
    requests: int | None
    in_flight: int | None


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """Workers on their way out, and what they wait for."""

    generation: int
    pids: list[int]
    waiting_for: str


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service."""

    name: str
    state: State
    generation: int
    listen: list[str]
    public_url: str
    depends_on: list[str]
    workers: WorkerCounts
    processes: list[ProcessStatus]
    draining: list[DrainStatus]
    restarts: int
    last_exit: Exit | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """The whole daemon. `state` is starting, running, reloading or stopping."""

    version: str
    pid: int
    state: str
    started_at: str
    config: ConfigStatus
    last_reload: ReloadStatus | None
    services: list[ServiceStatus]


def reload_status(report: Report) -> ReloadStatus:
    """A report as it is shown."""
    return ReloadStatus(
        outcome=report.outcome,
        at=report.at,
        since=report.since,
        why=report.why,
        seconds=report.seconds,
        changes=as_json(report.changes),
        error=report.error,
        service=report.service,
        details=list(report.details),
        last_lines=list(report.last_lines),
        restart_needed=list(report.restart_needed),
    )


def service_status(service: Service, cpu: CpuMeter) -> ServiceStatus:
    """A service as it is now."""
    current = service.current
    leaving = [*service.draining, *([current] if current is not None else [])]
    return ServiceStatus(
        name=service.plan.name,
        state=service.state,
        generation=service.generation,
        listen=_listen(service),
        public_url=service.plan.definition.public_url,
        depends_on=[dependency.service for dependency in service.plan.depends_on],
        workers=WorkerCounts(
            desired=current.wanted if current is not None else service.plan.workers,
            ready=current.ready_count if current is not None else 0,
        ),
        processes=[_process(p, cpu) for p in current.processes] if current is not None else [],
        draining=[_drain(generation) for generation in leaving if generation.leaving],
        restarts=service.restarts,
        last_exit=service.last_exit,
        error=service.error or None,
    )


def _listen(service: Service) -> list[str]:
    """Where it can be reached: with the ports that were really bound."""
    if service.current is None or not service.current.listeners:
        return list(service.plan.urls)
    return [li.url for li in service.current.listeners if not li.plan.internal]


def _process(process: WorkerProcess, cpu: CpuMeter) -> ProcessStatus:
    counters = process.counters
    return ProcessStatus(
        pid=process.pid,
        worker=process.slot,
        generation=process.launch.generation,
        state=process.state,
        started_at=process.since,
        rss_bytes=memory.resident(process.pid),
        cpu_percent=cpu.percent(process.pid, process.lived),
        requests=counters.answered if counters is not None else None,
        in_flight=counters.gauge(IN_FLIGHT) if counters is not None else None,
    )


def _drain(generation: Generation) -> DrainStatus:
    return DrainStatus(
        generation=generation.number,
        pids=sorted(process.pid for process in generation.leaving),
        waiting_for=waiting_for(process.report.draining for process in generation.leaving),
    )


def waiting_for(counts: Iterable[dict[str, int]]) -> str:
    """`3 requests, 1 websocket`; what a program of its own waits for is not known."""
    total: dict[str, int] = {}
    for each in counts:
        for kind, count in each.items():
            total[kind] = total.get(kind, 0) + count
    named = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in total.items()]
    return ", ".join(named) or "its end"
