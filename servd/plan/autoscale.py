"""Numbers of workers that follow the load. Pure: samples in, a number out."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from servd.config.worker_tables import Autoscale
from servd.core.quick_dataclass import dataclass
from servd.plan.model import Plan, ServicePlan

_TOLERANCE = 0.1
"""Share by which the load must exceed the target before workers are added, as Kubernetes has it."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class LoadSample:
    """Requests that all workers of a service have at the time `at`, in seconds; queued ones too."""

    at: float
    in_flight: float


def mean_load(samples: Sequence[LoadSample], seconds: float) -> float:
    """Returns the mean of the last `seconds`; of the last sample if they hold no more."""
    since = samples[-1].at - seconds
    return statistics.fmean(s.in_flight for s in samples if s.at >= since)


def wanted_workers(
    samples: Sequence[LoadSample], scale: Autoscale, workers: int, since: float
) -> int:
    """Returns how many workers a service should have that has had `workers` since the time `since`.

    More are wanted when the load of all of `up_after` calls for them, on average and for most of
    that time: a short burst does not. Fewer are wanted when they would have been enough for every
    stretch of `up_after` within `down_after`. What adds a worker is a tenth above what keeps it, so
    a steady load never adds and removes in turn. `samples` are in order, and one at least.
    """
    now, target = samples[-1].at, scale.target_in_flight
    recent = [s.in_flight for s in samples if s.at >= max(now - scale.up_after, since)]
    if now - max(since, samples[0].at) >= scale.up_after and recent:
        mean = statistics.fmean(recent)
        most_of_the_time = statistics.median(recent) > workers * target
        if mean > workers * target * (1 + _TOLERANCE) and most_of_the_time:
            return _within(scale, max(workers + 1, _enough_for(mean, target)))
    if now - samples[0].at >= scale.down_after:
        latest = [s for s in samples if s.at >= now - scale.down_after]
        fewer = _enough_for(max(_rolling_means(latest, scale.up_after)), target)
        if fewer < workers:
            return _within(scale, fewer)
    return _within(scale, workers)


def autoscaled(declared: Plan, numbers: Mapping[str, int]) -> Plan:
    """Returns the `declared` plan with the number of workers in `numbers` for each service that
    follows its load, within its limits. A service without one keeps the least.
    """
    return dataclasses.replace(
        declared, services=tuple(_autoscaled(s, numbers) for s in declared.services)
    )


def scaling_of(service: ServicePlan) -> Autoscale | None:
    """Returns how the number of workers of a service follows its load; None if it does not."""
    return service.definition.autoscale if service.app is not None else None


def _autoscaled(service: ServicePlan, numbers: Mapping[str, int]) -> ServicePlan:
    scale, number = scaling_of(service), numbers.get(service.name, 0)
    if scale is None or not number:
        return service
    return dataclasses.replace(service, workers=_within(scale, number))


def _within(scale: Autoscale, workers: int) -> int:
    return min(max(workers, scale.min), scale.max)


def _enough_for(load: float, target: float) -> int:
    return math.ceil(load / target - _ROUNDING)


def _rolling_means(samples: Sequence[LoadSample], seconds: float) -> Iterator[float]:
    """Yields the mean of the `seconds` before each sample."""
    total, first = 0.0, 0
    for index, sample in enumerate(samples):
        total += sample.in_flight
        while samples[first].at < sample.at - seconds:
            total -= samples[first].in_flight
            first += 1
        yield total / (index - first + 1)
