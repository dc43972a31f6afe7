"""Numbers of workers that follow the load. Pure: samples in, a number out."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping

from servd.config.worker_tables import Autoscale
from servd.plan.model import Plan, ServicePlan

_TOLERANCE = 0.1
"""Share by which the load must exceed the target before workers are added, as Kubernetes has it."""

_ROUNDING = 1e-9

_STRETCHES = 60
"""Values that are kept of each of the two times."""


@dataclasses.dataclass(slots=True)
class _Stretch:
    """Samples of a short time, as one: their sum and number, and when they were."""

    begin: float
    end: float
    total: float
    count: int

    @property
    def mean(self) -> float:
        return self.total / self.count


@dataclasses.dataclass(slots=True)
class _Peak:
    """The highest mean load of a stretch of time, and its end."""

    begin: float
    end: float
    load: float


class LoadHistory:
    """The requests that all workers of a service had, queued ones too: as much as `scale` looks at,
    in about a hundred values, however long that is.
    """

    def __init__(self, scale: Autoscale) -> None:
        self.scale = scale
        self.began = 0.0
        self.recent: deque[_Stretch] = deque()
        """The last `up_after`."""

        self.peaks: deque[_Peak] = deque()
        """The highest means of `up_after` in the last `down_after`."""

    @property
    def now(self) -> float:
        """When the last sample was added."""
        return self.recent[-1].end

    @property
    def mean(self) -> float:
        """The mean load of the last `up_after`."""
        return _mean(self.recent)

    def add(self, at: float, in_flight: float) -> None:
        """Adds a sample. Times increase."""
        scale, recent, peaks = self.scale, self.recent, self.peaks
        if not recent:
            self.began = at
        if recent and at - recent[-1].begin < scale.up_after / _STRETCHES:
            last = recent[-1]
            last.end, last.total, last.count = at, last.total + in_flight, last.count + 1
        else:
            recent.append(_Stretch(at, at, in_flight, 1))
        while recent[0].end < at - scale.up_after:
            recent.popleft()
        if peaks and at - peaks[-1].begin < scale.down_after / _STRETCHES:
            peaks[-1].end, peaks[-1].load = at, max(peaks[-1].load, self.mean)
        else:
            peaks.append(_Peak(at, at, self.mean))
        while peaks[0].end < at - scale.down_after:
            peaks.popleft()


def wanted_workers(history: LoadHistory, workers: int, since: float) -> int:
    """Returns how many workers a service should have that has had `workers` since the time `since`.

    More are wanted when the load of all of `up_after` calls for them, on average and for most of
    that time: a short burst does not. Fewer are wanted when they would have been enough for every
    stretch of `up_after` within `down_after`. What adds a worker is a tenth above what keeps it, so
    a steady load never adds and removes in turn. The history has a sample at least.
    """
    scale, now = history.scale, history.now
    target = scale.target_in_flight
    recent = [stretch for stretch in history.recent if stretch.begin >= since]
    if now - max(since, history.began) >= scale.up_after and recent:
        mean = _mean(recent)
        most_of_the_time = statistics.median(s.mean for s in recent) > workers * target
        if mean > workers * target * (1 + _TOLERANCE) and most_of_the_time:
            return _within(scale, max(workers + 1, _enough_for(mean, target)))
    if now - history.began >= scale.down_after:
        fewer = _enough_for(max(peak.load for peak in history.peaks), target)
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


def _mean(stretches: Iterable[_Stretch]) -> float:
    total = count = 0.0
    for each in stretches:
        total += each.total
        count += each.count
    return total / count
