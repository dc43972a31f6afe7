"""Measurements of the daemon and everything it runs, at one moment."""

from __future__ import annotations

from servd.core.quick_dataclass import dataclass
from servd.daemon.gpus.usage import NO_USAGE, GpuUsage, usage_of
from servd.daemon.metrics.gpus import NO_ERRORS, GpuErrorCounts
from servd.daemon.reload.statistics import ReloadStatistics
from servd.supervisor.circus.process import WORKER_STATES
from servd.supervisor.health import memory
from servd.supervisor.service import ManagedService
from servd.supervisor.supervisor import Supervisor
from servd.wire import shm_counters
from servd.wire.gpus import GpuSnapshot
from servd.wire.shm_counters import Totals


@dataclass(frozen=True, slots=True)
class ServiceSample:
    """A service: workers by state, bytes by (worker index, generation), certificate (PEM or ""),
    and for one that runs elsewhere whether it `answers`.
    """

    name: str
    workers: dict[str, int]
    memory: dict[tuple[int, int], int]
    certificate: str
    answers: bool | None = None


@dataclass(frozen=True, slots=True)
class RequestSample:
    """What the workers of one service have counted; kept when the service is gone."""

    service: str
    totals: Totals
    in_flight: int
    queued: int
    websockets: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All metrics except apps' own."""

    services: list[ServiceSample]
    requests: list[RequestSample]
    restarts: dict[tuple[str, str], int]
    reload_outcomes: dict[str, int]
    reload_buckets: list[int]
    reload_seconds: float
    last_reload_successful: bool
    dropped: int
    gpus: GpuUsage = NO_USAGE
    gpu_errors: GpuErrorCounts = NO_ERRORS


def snapshot(
    supervisor: Supervisor, reloads: ReloadStatistics, dropped: int, gpus: GpuSnapshot | None = None
) -> Snapshot:
    """Measures everything, in the daemon's loop. `dropped`: log lines that the daemon dropped."""
    counts = supervisor.context.workers.counters
    requests = [
        RequestSample(
            name,
            counts.totals(name),
            counts.gauge(name, shm_counters.IN_FLIGHT),
            counts.gauge(name, shm_counters.QUEUED),
            counts.gauge(name, shm_counters.WEBSOCKETS),
        )
        for name in counts.services
    ]
    services = [*supervisor.services.values(), *supervisor.leaving]
    return Snapshot(
        services=[_service_sample(service) for service in services],
        requests=requests,
        restarts=dict(counts.restarts),
        reload_outcomes=dict(reloads.outcomes),
        reload_buckets=list(reloads.buckets),
        reload_seconds=reloads.seconds,
        last_reload_successful=reloads.last_successful,
        dropped=dropped + sum(sample.totals.dropped for sample in requests),
        gpus=usage_of(gpus, supervisor),
    )


def _service_sample(service: ManagedService) -> ServiceSample:
    states = dict.fromkeys(WORKER_STATES, 0)
    used: dict[tuple[int, int], int] = {}
    for generation in service.generations:
        for process in (*generation.workers.processes, *generation.workers.leaving):
            states[process.state] += 1
            key = (process.slot, generation.number)
            used[key] = used.get(key, 0) + (memory.resident(process.pid) or 0)
    return ServiceSample(
        name=service.plan.name,
        workers=states,
        memory=used,
        certificate=service.plan.tls.certificate if service.plan.tls is not None else "",
        answers=service.is_ready if service.plan.external is not None else None,
    )
