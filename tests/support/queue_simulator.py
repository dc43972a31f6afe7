"""A small discrete-event simulation of one station, to hold formulas against."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Simulated:
    """Seconds from arrival to answer of those that were not refused, sorted."""

    took: list[float]
    refused: float

    @property
    def mean(self) -> float:
        return sum(self.took) / len(self.took)

    @property
    def p95(self) -> float:
        return self.took[int(0.95 * len(self.took))]


def simulated(
    arrivals: float,
    places: int,
    room: int | None,
    service: Callable[[random.Random], float],
    requests: int = 200_000,
) -> Simulated:
    """Poisson arrivals at `places`, first come, first served, and `room` for those that wait."""
    rng = random.Random(7)
    now, took, refused = 0.0, list[float](), 0
    ends: list[float] = []
    waiting: deque[float] = deque()

    def serve(arrived: float, begins: float) -> None:
        end = begins + service(rng)
        heapq.heappush(ends, end)
        took.append(end - arrived)

    for _ in range(requests):
        now += rng.expovariate(arrivals)
        while ends and ends[0] <= now:
            freed = heapq.heappop(ends)
            if waiting:
                serve(waiting.popleft(), freed)
        if len(ends) < places:
            serve(now, now)
        elif room is None or len(waiting) < room:
            waiting.append(now)
        else:
            refused += 1
    return Simulated(sorted(took), refused / requests)


def shared_cpus(
    arrivals: float, places: int, delay: float, cpu: float, cpus: int, requests: int = 100_000
) -> Simulated:
    """As `simulated`, without an end of the queue: a request waits for `delay`, then shares `cpus`
    with the others for `cpu` seconds, both exponentially distributed: so the next event of a state
    is random alone.
    """
    rng = random.Random(11)
    now, took = 0.0, list[float]()
    delayed, computing, waiting = list[float](), list[float](), deque[float]()
    while len(took) < requests:
        leaves, done = len(delayed) / delay, min(len(computing), cpus) / cpu
        now += rng.expovariate(total := arrivals + leaves + done)
        which = rng.random() * total
        if which < arrivals:
            waiting.append(now)
        elif which < arrivals + leaves:
            computing.append(delayed.pop(rng.randrange(len(delayed))))
        else:
            took.append(now - computing.pop(rng.randrange(len(computing))))
        while waiting and len(delayed) + len(computing) < places:
            delayed.append(waiting.popleft())
    return Simulated(sorted(took), 0.0)
