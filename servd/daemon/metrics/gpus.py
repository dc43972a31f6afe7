"""Metrics of GPUs, and of what workers hold of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from servd.core.quick_dataclass import dataclass
from servd.daemon.gpus.usage import GpuUsage

_FIGURES = {
    "servd_gpu_utilization_ratio": ("Share of time in which a GPU computes.", "utilization"),
    "servd_gpu_temperature_celsius": ("Temperature of a GPU.", "temperature"),
    "servd_gpu_power_watts": ("Power that a GPU draws.", "power"),
}


@dataclass(frozen=True, slots=True)
class GpuErrorCounts:
    """Errors by GPU and Xid (0: without a number), and the GPUs in quarantine."""

    counts: Mapping[tuple[str, int], int]
    quarantined: frozenset[str] = frozenset()


NO_ERRORS = GpuErrorCounts({})


def gpu_error_families(usage: GpuUsage, errors: GpuErrorCounts) -> Iterator[Metric]:
    """Yields the metrics of what goes wrong with GPUs."""
    counted = CounterMetricFamily(
        "servd_gpu_errors",
        "Errors that the driver reported of a GPU; xid 0 is an error without a number.",
        labels=["gpu", "xid"],
    )
    for (gpu, xid), count in sorted(errors.counts.items()):
        counted.add_metric([gpu, str(xid)], count)
    yield counted
    states = GaugeMetricFamily(
        "servd_gpu_state", "1 for the state that a GPU is in.", labels=["gpu", "state"]
    )
    known = {gpu.id for gpu in usage.snapshot.gpus} if usage.snapshot is not None else set()
    for gpu in sorted(known | errors.quarantined):
        is_sick = gpu in errors.quarantined
        states.add_metric([gpu, "ok"], not is_sick)
        states.add_metric([gpu, "quarantined"], is_sick)
    yield states


def gpu_families(usage: GpuUsage) -> Iterator[Metric]:
    """Yields the metrics of all GPUs; without samples while they are unknown."""
    workers = GaugeMetricFamily(
        "servd_worker_gpu_memory_bytes",
        "Memory of a GPU that a worker and the processes it started hold.",
        labels=["service", "worker", "gpu"],
    )
    for (worker, gpu_id), size in usage.by_worker().items():
        workers.add_metric([worker.service, str(worker.worker), gpu_id], size)
    yield workers
    gpus = usage.snapshot.gpus if usage.snapshot is not None else ()
    info = GaugeMetricFamily(
        "servd_gpu_info", "The number and the model of a GPU.", labels=["gpu", "number", "name"]
    )
    memory = GaugeMetricFamily(
        "servd_gpu_memory_bytes", "Memory of a GPU, used and free.", labels=["gpu", "state"]
    )
    errors = CounterMetricFamily(
        "servd_gpu_ecc_errors", "Uncorrectable memory errors of a GPU.", labels=["gpu"]
    )
    for gpu in gpus:
        info.add_metric([gpu.id, gpu.number, gpu.name], 1)
        if gpu.total:  # else it is not told
            memory.add_metric([gpu.id, "used"], gpu.used)
            memory.add_metric([gpu.id, "free"], gpu.free)
        if gpu.errors is not None:
            errors.add_metric([gpu.id], gpu.errors)
    yield info
    yield memory
    yield errors
    for name, (text, field) in _FIGURES.items():
        family = GaugeMetricFamily(name, text, labels=["gpu"])
        for gpu in gpus:
            value = getattr(gpu, field)
            if value is not None:
                family.add_metric([gpu.id], value)
        yield family
