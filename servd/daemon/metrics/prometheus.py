"""Renders metrics in the formats of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import structlog
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from servd._version import __version__
from servd.core.events import Event
from servd.core.quick_dataclass import dataclass
from servd.daemon.metrics.gpus import gpu_error_families, gpu_families
from servd.daemon.metrics.multiprocess import AppMetrics, labelled
from servd.daemon.metrics.snapshot import Snapshot
from servd.daemon.watch.certificates import validity
from servd.wire.shm_counters import BOUNDS

log = structlog.get_logger()


class PrometheusRenderer:
    """Renders snapshots and apps' own metrics. Blocks: call it in a thread."""

    def __init__(self, apps: AppMetrics) -> None:
        self.apps = apps
        self._damaged: set[str] = set()

    def render(self, snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
        """Returns the text and its content type, as the Accept header asks."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Once(lambda: [*_families(snapshot), *self._app_families(snapshot)]))
        encoder, content_type = choose_encoder(accept)
        return encoder(registry), content_type

    def _app_families(self, snapshot: Snapshot) -> Iterable[Metric]:
        """Merges the families of all services by name."""
        found: dict[str, Metric] = {}
        for sample in snapshot.services:
            for family in self._families_of(sample.name):
                known = found.get(family.name)
                if known is None:
                    found[family.name] = family
                elif known.type == family.type:
                    known.samples += family.samples
        return found.values()

    def _families_of(self, service: str) -> list[Metric]:
        try:
            families = self.apps.families(service)
        except Exception as error:  # a service may have written anything
            if service not in self._damaged:
                self._damaged.add(service)
                log.warning(Event.APP_METRICS_NOT_READ, service=service, error=str(error))
            return []
        return [labelled(family, service) for family in families]


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as the reference lists it."""

    name: str
    type: str
    labels: tuple[str, ...]
    text: str


def described() -> Iterator[Described]:
    """Yields every metric of servd."""
    nothing = Snapshot([], [], {}, {}, [0] * (len(BOUNDS) + 1), 0.0, True, 0)
    for family in _families(nothing):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = tuple(getattr(family, "_labelnames", ()))
        yield Described(family.name + suffix, family.type, labels, family.documentation)


class _Once(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def _families(snapshot: Snapshot) -> Iterator[Metric]:
    yield InfoMetricFamily("servd_build", "The version of servd.", {"version": __version__})
    yield from _requests(snapshot)
    yield from _workers(snapshot)
    yield from _reloads(snapshot)
    yield _certificates(snapshot)
    yield from gpu_families(snapshot.gpus)
    yield from gpu_error_families(snapshot.gpus, snapshot.gpu_errors)
    dropped = "Log lines dropped because of write errors, slow writes or rate limits."
    yield CounterMetricFamily("servd_log_lines_dropped", dropped, snapshot.dropped)


def _requests(snapshot: Snapshot) -> Iterator[Metric]:
    answered = CounterMetricFamily(
        "servd_requests", "Requests answered.", labels=["service", "method", "code"]
    )
    seconds = HistogramMetricFamily(
        "servd_request_duration_seconds",
        "Time from a request's headers to the last byte of its response.",
        labels=["service"],
    )
    rejected = CounterMetricFamily(
        "servd_requests_rejected", "Requests rejected by a limit.", labels=["service", "reason"]
    )
    for sample in snapshot.requests:
        name, totals = sample.service, sample.totals
        for (method, code), count in sorted(totals.requests.items()):
            answered.add_metric([name, method, str(code)], count)
        seconds.add_metric([name], buckets(totals.buckets), totals.seconds)
        for reason, count in totals.rejected.items():
            rejected.add_metric([name, reason], count)
    yield answered
    yield seconds
    yield rejected
    gauges = {
        "servd_requests_in_flight": ("Requests in flight.", "in_flight"),
        "servd_requests_queued": ("Requests waiting in the queue.", "queued"),
        "servd_websockets_open": ("Open WebSocket connections.", "websockets"),
    }
    for metric, (text, field) in gauges.items():
        family = GaugeMetricFamily(metric, text, labels=["service"])
        for sample in snapshot.requests:
            family.add_metric([sample.service], getattr(sample, field))
        yield family


def buckets(counts: list[int]) -> list[tuple[str, float]]:
    """Returns cumulative counts with their upper bounds."""
    found: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*BOUNDS, float("inf")), counts, strict=True):
        total += count
        found.append(("+Inf" if bound == float("inf") else str(bound), total))
    return found


def _workers(snapshot: Snapshot) -> Iterator[Metric]:
    workers = GaugeMetricFamily("servd_workers", "Workers by state.", labels=["service", "state"])
    memory = GaugeMetricFamily(
        "servd_worker_memory_bytes",
        "Resident memory of a worker.",
        labels=["service", "worker", "generation"],
    )
    external = GaugeMetricFamily(
        "servd_external_up",
        "Whether a service that runs elsewhere answers its probes.",
        labels=["service"],
    )
    for sample in snapshot.services:
        if sample.answers is not None:
            external.add_metric([sample.name], sample.answers)
            continue
        for state, count in sample.workers.items():
            workers.add_metric([sample.name, state], count)
        for (worker, generation), size in sorted(sample.memory.items()):
            memory.add_metric([sample.name, str(worker), str(generation)], size)
    restarts = CounterMetricFamily(
        "servd_worker_restarts", "Workers replaced, by reason.", labels=["service", "reason"]
    )
    for (name, reason), count in sorted(snapshot.restarts.items()):
        restarts.add_metric([name, reason], count)
    yield workers
    yield external
    yield memory
    yield restarts


def _reloads(snapshot: Snapshot) -> Iterator[Metric]:
    reloads = CounterMetricFamily("servd_reloads", "Reloads by outcome.", labels=["outcome"])
    for outcome, count in snapshot.reload_outcomes.items():
        reloads.add_metric([outcome], count)
    yield reloads
    yield GaugeMetricFamily(
        "servd_config_last_reload_successful",
        "Whether the last reload succeeded (1 before the first reload).",
        float(snapshot.last_reload_successful),
    )
    yield HistogramMetricFamily(
        "servd_reload_duration_seconds",
        "Duration of reloads.",
        buckets(snapshot.reload_buckets),
        snapshot.reload_seconds,
    )


def _certificates(snapshot: Snapshot) -> Metric:
    family = GaugeMetricFamily(
        "servd_tls_certificate_expiry_timestamp_seconds",
        "Expiry time of the certificate of a service (Unix time).",
        labels=["service"],
    )
    for sample in snapshot.services:
        found = validity(sample.certificate) if sample.certificate else None
        if found is not None:
            family.add_metric([sample.name], found.ends.timestamp())
    return family
