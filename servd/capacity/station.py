"""Forecasts one service as a station of a queueing network.

With `limits.concurrency`, the places of all workers are the servers of a queue, first come, first
served: M/M/c/K, whose rate of service while n are in progress is that of a closed network of n
requests that wait (a delay) and share the CPUs (Norton's theorem of queueing networks: Chandy,
Herzog and Woo, 1975). Without a limit, the CPU of a worker is an M/G/1 queue, since an event loop
runs what is due one after the other, and the rest of the time is a delay.
"""

from __future__ import annotations

import math

from servd.capacity.queueing import (
    Queue,
    closed_rates,
    erlang_c,
    percentile_of_sum,
    points_of_gamma,
    points_of_wait,
    queue_of,
)
from servd.core.quick_dataclass import dataclass

PERCENTILE = 0.95


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request needs, without waiting for its turn: seconds of a CPU, and of `delay` (time
    of other services, of disks, of timers). `variability` is the variance of the whole over the
    square of its mean.
    """

    delay: float
    cpu: float
    variability: float = 1.0

    @property
    def seconds(self) -> float:
        """The service time."""
        return self.delay + self.cpu


@dataclass(frozen=True, slots=True)
class Station:
    """What serves: `places` and `queue` of each worker (None: no limit), and the CPUs for all."""

    workers: int
    cpus: int
    places: int | None = None
    queue: int | None = None

    @property
    def parallel(self) -> int:
        """The CPUs that its workers can use at once: Python runs on one per process."""
        return max(1, min(self.workers, self.cpus))


@dataclass(frozen=True, slots=True)
class Forecast:
    """What to expect. Of `arrivals`, `throughput` a second are answered; `capacity` is the most.
    `utilisation` is arrivals over capacity, `cpus` the mean number of busy CPUs, `lost` the share
    that is refused. `mean` and `p95` are seconds from arrival to answer; None if the queue grows
    without end.
    """

    arrivals: float
    throughput: float
    capacity: float
    utilisation: float
    cpus: float
    lost: float
    mean: float | None
    p95: float | None


def capacity(station: Station, demand: Demand) -> float:
    """Returns the requests per second that a station can serve."""
    if not station.workers:
        return 0.0
    if station.places is None:
        return station.parallel / demand.cpu if demand.cpu else math.inf
    return _rates(station, demand)[-1]


def is_enough(
    station: Station, demand: Demand, arrivals: float, target: float, lost: float
) -> bool:
    """Returns whether utilisation and the share of refused requests stay within their limits."""
    if arrivals > target * capacity(station, demand):
        return False
    queue = _queue(station, demand, arrivals) if station.places is not None else None
    return queue is None or queue.lost <= lost


def forecast(station: Station, demand: Demand, arrivals: float) -> Forecast:
    """Returns what to expect of a station at a rate of arrivals."""
    most = capacity(station, demand)
    if not arrivals or not most:
        none = demand.seconds if most else None
        return Forecast(arrivals, 0.0, most, 0.0 if most else math.inf, 0.0, 0.0, none, none)
    if station.places is None:
        wait, service = _for_cpu(station, demand, arrivals), demand.seconds
    else:
        wait = _queue(station, demand, arrivals)
        answered = arrivals * (1 - wait.lost) if wait is not None else most
        service = wait.in_service / answered if wait is not None else demand.seconds
    if wait is None:
        cpus = most * demand.cpu
        return Forecast(arrivals, most, most, arrivals / most, cpus, 0.0, None, None)
    answered = arrivals * (1 - wait.lost)
    stretched = (1 + demand.variability) / 2  # Allen and Cunneen: waits of other service times
    p95 = percentile_of_sum(
        points_of_wait(wait, stretched), points_of_gamma(service, demand.variability), PERCENTILE
    )
    return Forecast(
        arrivals=arrivals,
        throughput=answered,
        capacity=most,
        utilisation=arrivals / most,
        cpus=answered * demand.cpu,
        lost=wait.lost,
        mean=service + stretched * wait.wait,
        p95=p95,
    )


def _rates(station: Station, demand: Demand) -> list[float]:
    assert station.places is not None
    places = station.workers * station.places
    return closed_rates(places, demand.delay, demand.cpu, station.parallel)


def _queue(station: Station, demand: Demand, arrivals: float) -> Queue | None:
    room = None if station.queue is None else station.workers * station.queue
    return queue_of(arrivals, _rates(station, demand), room)


def _for_cpu(station: Station, demand: Demand, arrivals: float) -> Queue | None:
    """Returns the queue for the CPU: that of each worker, or with fewer CPUs than workers, that of
    each CPU, which the system lends to any of them.
    """
    if not demand.cpu:
        return Queue(0.0, 0.0, 0.0, 0.0, math.inf)
    own = station.workers <= station.cpus
    servers = 1 if own else station.cpus
    load = arrivals * demand.cpu / (station.workers if own else 1)
    if load >= servers:
        return None
    waits = erlang_c(servers, load)
    rate = servers / demand.cpu
    return Queue(0.0, waits, waits * demand.cpu / (servers - load), load, rate)
