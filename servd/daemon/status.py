"""The daemon's state as values: the shape of `GET /v1/status`."""

from __future__ import annotations

from typing import Literal

from servd.core.quick_dataclass import dataclass
from servd.daemon.autoscaler import Autoscaler
from servd.daemon.gpus.usage import NO_USAGE, GpuUsage, GpuUse
from servd.daemon.metrics.cpu import CpuMeter
from servd.daemon.metrics.rates import NOT_COUNTED, RequestRates
from servd.daemon.reload.desired import DesiredState
from servd.daemon.reload.request import ReloadReport
from servd.daemon.watch.certificates import validity
from servd.plan.autoscale import scaling_of
from servd.plan.model import ServicePlan
from servd.plan.overrides import EndedOverride
from servd.plan.render_changes import Row, SettingRow, change_rows
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.drain_text import waiting_for
from servd.supervisor.exits import WorkerExit
from servd.supervisor.generation import Generation
from servd.supervisor.health import memory
from servd.supervisor.service import ManagedService
from servd.supervisor.states import State
from servd.wire.shm_counters import IN_FLIGHT


@dataclass(frozen=True, slots=True)
class ConfigStatus:
    """The current configuration. `generation` increases with every applied reload."""

    path: str
    digest: str
    generation: int
    loaded_at: str


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """The outcome of a reload. `details` are all errors of an invalid configuration, `last_lines`
    the last output of a failed worker, `since` is when the current state was applied,
    `by_hand_ends` are the manual changes that the reload ended.
    """

    outcome: str
    at: str
    since: str
    why: str
    seconds: float
    changes: list[Row]
    settings: list[SettingRow]
    error: str | None
    service: str | None
    details: list[str]
    last_lines: list[str]
    restart_needed: list[str]
    by_hand_ends: list[EndedOverride]


@dataclass(frozen=True, slots=True)
class WorkerCounts:
    """The desired number of workers, and how many are ready."""

    desired: int
    ready: int


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One worker of the current generation, with the GPUs that it has or uses. Unavailable
    measurements are null. `status_text` is what it says about itself (STATUS=).
    """

    pid: int
    worker: int
    generation: int
    state: str
    started_at: str
    rss_bytes: int | None
    cpu_percent: float | None
    requests: int | None
    in_flight: int | None
    rps: float | None
    rps_4xx: float | None
    rps_5xx: float | None
    error_rate: float | None
    p50_ms: float | None
    p99_ms: float | None
    gpus: list[GpuUse]
    status_text: str | None


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """Draining workers, and what they wait for."""

    generation: int
    pids: list[int]
    waiting_for: str


@dataclass(frozen=True, slots=True)
class WorkersOverride:
    """A manually set number of workers, and the declared one (`file`)."""

    workers: int
    file: int


@dataclass(frozen=True, slots=True)
class AutoscaleStatus:
    """The limits of a number of workers that follows the load, the wanted mean of the requests in
    flight of a worker, and the mean of all workers together; null if nothing follows it now.
    """

    min: int
    max: int
    target_in_flight: float
    in_flight: float | None


@dataclass(frozen=True, slots=True)
class Coming:
    """A new generation that is starting. `status_text` is what a worker says that is not ready."""

    generation: int
    desired: int
    ready: int
    status_text: str | None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service. `bound_by` is who binds `listen` or its internal address: servd or the program;
    null without an address. `binds_itself`: undeclared addresses that its program listens on.
    `since` is when it entered its state. `error_rate` is the share of responses with 5xx, 0 to 1.
    `rps`, `rps_4xx`, `rps_5xx` (requests per second: all, 4xx, 5xx), `p50_ms`
    and `p99_ms` cover the last ten seconds, null unless it is an app; `requests` counts since the
    daemon started. `error` also reports that most recent responses are 5xx; `notices` are what else
    to know. `by_hand` is set if the number of workers differs from the declared one, `crash_loop`
    if a worker dies repeatedly.
    """

    name: str
    state: State
    since: str
    generation: int
    listen: list[str]
    bound_by: Literal["servd", "program"] | None
    binds_itself: list[str]
    public_url: str
    depends_on: list[str]
    workers: WorkerCounts
    processes: list[ProcessStatus]
    draining: list[DrainStatus]
    coming: Coming | None
    by_hand: WorkersOverride | None
    autoscale: AutoscaleStatus | None
    crash_loop: bool
    kind: str
    requests: int | None
    rps: float | None
    rps_4xx: float | None
    rps_5xx: float | None
    error_rate: float | None
    p50_ms: float | None
    p99_ms: float | None
    certificate_expires_at: str | None
    restarts: int
    last_exit: WorkerExit | None
    error: str | None
    notices: list[str]


@dataclass(frozen=True, slots=True)
class Status:
    """The whole daemon. `state` is starting, running, reloading or stopping; `last_reload` is the
    last one that changed something or failed, and `unchanged_at` is when a later one found no
    changes; `last_act` is the last manual action; `predecessor` is the pid of the previous daemon
    while it drains.
    """

    version: str
    pid: int
    state: str
    started_at: str
    config: ConfigStatus
    last_reload: ReloadStatus | None
    unchanged_at: str | None
    last_act: ReloadStatus | None
    services: list[ServiceStatus]
    predecessor: int | None


def reload_status(report: ReloadReport) -> ReloadStatus:
    """Returns a report in the form of the API."""
    return ReloadStatus(
        outcome=report.outcome,
        at=report.at,
        since=report.since,
        why=report.why,
        seconds=report.seconds,
        changes=change_rows(report.changes),
        settings=list(report.settings),
        error=report.error,
        service=report.service,
        details=list(report.details),
        last_lines=list(report.last_lines),
        restart_needed=list(report.restart_needed),
        by_hand_ends=list(report.by_hand_ends),
    )


@dataclass(frozen=True, slots=True)
class View:
    """What the status of a service needs in addition to it."""

    cpu: CpuMeter
    traffic: RequestRates
    autoscaler: Autoscaler
    desired: DesiredState
    newer_inputs: frozenset[str] = frozenset()
    gpus: GpuUsage = NO_USAGE


def service_status(service: ManagedService, view: View) -> ServiceStatus:
    """Returns the current status of a service."""
    current, upcoming, plan = service.current, service.upcoming, service.plan
    counters = service.context.workers.counters if plan.app is not None else None
    rate = view.traffic.service(plan.name) if counters is not None else NOT_COUNTED
    workers = current.workers if current is not None else None
    leaving = [*service.draining, *([current] if current is not None else [])]
    return ServiceStatus(
        name=plan.name,
        state=service.state,
        since=service.since,
        generation=service.generation,
        listen=_listen(service),
        bound_by=_bound_by(plan),
        binds_itself=[item.address for item in plan.found],
        public_url=plan.definition.public_url,
        depends_on=[dependency.service for dependency in plan.depends_on],
        workers=WorkerCounts(workers.wanted, workers.ready_count)
        if workers is not None
        else WorkerCounts(plan.workers, 0),
        processes=[_process(p, view) for p in (workers.processes if workers is not None else ())],
        draining=[_drain(generation) for generation in leaving if generation.workers.leaving],
        coming=_coming(upcoming) if upcoming is not None else None,
        by_hand=_by_hand(plan, view.desired),
        autoscale=_autoscale(plan, view),
        crash_loop=service.crash_loop,
        kind="task" if plan.is_task else plan.kind,
        requests=counters.answers(plan.name).total if counters is not None else None,
        rps=rate.per_second,
        rps_4xx=rate.client_errors,
        rps_5xx=rate.server_errors,
        error_rate=rate.error_rate,
        p50_ms=rate.p50_ms,
        p99_ms=rate.p99_ms,
        certificate_expires_at=_expires_at(plan),
        restarts=service.restarts,
        last_exit=service.last_exit,
        error=service.error or rate.trouble or None,
        notices=_notices(service, view),
    )


def _notices(service: ManagedService, view: View) -> list[str]:
    """Returns what to know of a service that is no error."""
    found = []
    if service.is_held_up and (held_up := service.held_up_by) is not None:
        found.append(f"a reload waits: {held_up.shown_drain}")
    if newer := [path for path, _ in service.plan.inputs if path in view.newer_inputs]:
        found.append(f"runs older inputs than the disk: {', '.join(newer)}")
    return found


def _coming(generation: Generation) -> Coming:
    workers = generation.workers
    texts = (p.report.status_text for p in workers.processes if not p.was_ready)
    text = next(filter(None, texts), None)
    return Coming(generation.number, generation.plan.workers, workers.ready_count, text)


def _by_hand(plan: ServicePlan, desired: DesiredState) -> WorkersOverride | None:
    declared = desired.declared.by_name.get(plan.name)
    if declared is None:
        return None
    differs = declared.workers != plan.workers
    return (
        WorkersOverride(plan.workers, declared.workers)
        if (differs or plan.name in desired.overrides)
        else None
    )


def _autoscale(plan: ServicePlan, view: View) -> AutoscaleStatus | None:
    scale = scaling_of(plan)
    if scale is None:
        return None
    in_flight = view.autoscaler.in_flight(plan)
    return AutoscaleStatus(scale.min, scale.max, scale.target_in_flight, in_flight)


def _expires_at(plan: ServicePlan) -> str | None:
    found = validity(plan.tls.certificate) if plan.tls is not None else None
    return found.ends.isoformat().replace("+00:00", "Z") if found is not None else None


def _listen(service: ManagedService) -> list[str]:
    """Returns its URLs, with the ports that are really bound."""
    if service.current is None or not service.current.listeners:
        return list(service.plan.urls)
    return [li.url for li in service.current.listeners if not li.plan.internal]


def _bound_by(plan: ServicePlan) -> Literal["servd", "program"] | None:
    if plan.sockets:
        return "servd"
    return "program" if plan.addresses and plan.binds_itself else None


def _process(process: WorkerProcess, view: View) -> ProcessStatus:
    counters, plan = process.counters, process.launch.plan
    rate = view.traffic.worker(counters) if counters is not None else NOT_COUNTED
    return ProcessStatus(
        pid=process.pid,
        worker=process.slot,
        generation=process.launch.generation,
        state=process.state,
        started_at=process.since,
        rss_bytes=memory.resident(process.pid),
        cpu_percent=view.cpu.percent(process.pid, process.lived),
        requests=counters.answers.total if counters is not None else None,
        in_flight=counters.gauge(IN_FLIGHT) if counters is not None else None,
        rps=rate.per_second,
        rps_4xx=rate.client_errors,
        rps_5xx=rate.server_errors,
        error_rate=rate.error_rate,
        p50_ms=rate.p50_ms,
        p99_ms=rate.p99_ms,
        gpus=view.gpus.of(process.pid, plan.gpus_of(process.slot), plan),
        status_text=process.report.status_text or None,
    )


def _drain(generation: Generation) -> DrainStatus:
    return DrainStatus(
        generation=generation.number,
        pids=sorted(process.pid for process in generation.workers.leaving),
        waiting_for=waiting_for(process.report.draining for process in generation.workers.leaving),
    )
