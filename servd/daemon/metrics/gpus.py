"""Metrics of GPUs, and of what workers hold of them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from servd.daemon.gpus.usage import GpuUsage

_FIGURES = {
    "servd_gpu_utilization_ratio": ("Share of time in which a GPU computes.", "utilization"),
    "servd_gpu_temperature_celsius": ("Temperature of a GPU.", "temperature"),
    "servd_gpu_power_watts": ("Power that a GPU draws.", "power"),
}


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
