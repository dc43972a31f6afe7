"""The formulas of queueing theory that a forecast needs. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from servd.core.quick_dataclass import dataclass

_POINTS = 120
"""Points that stand for a distribution."""

_LONG = 400
"""Length of a queue from which on a wait depends on the number ahead alone."""

_MANY = 200
"""Requests in progress up to which each number is computed."""

_SHORTEST_SECONDS = 1e-6

_HUGE = 1e200
"""Weight from which on all are scaled down."""

_NEGLIGIBLE = 1e-6
"""Share of arrivals that a queue of limited length may lose and count as endless."""

_MOST_ROOM = 10_000
"""Longer queues are forecast as queues of this length: waits there are of no use to anybody."""


def erlang_b(servers: int, load: float) -> float:
    """Returns the share of arrivals that find all `servers` busy and are lost (Erlang B). `load` is
    in erlangs: arrivals per service time.
    """
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked


def erlang_c(servers: int, load: float) -> float:
    """Returns the share of arrivals that wait for one of `servers` (Erlang C); 1 if the queue grows
    without end.
    """
    if load >= servers:
        return 1.0
    blocked = erlang_b(servers, load)
    return blocked / (1 - load / servers * (1 - blocked))


def closed_rates(most: int, delay: float, cpu: float, cpus: int) -> list[float]:
    """Returns the requests per second that complete while 1, 2, ... `most` are in progress. Each
    waits for `delay` seconds and needs `cpu` seconds of one of `cpus` that they share: a closed
    network in balance, which no distribution of these times changes. Of many, every so many are
    computed, and the others interpolated.
    """
    delay = max(delay, _SHORTEST_SECONDS)
    if not cpu:
        return [n / delay for n in range(1, most + 1)]
    step = max(1, (most - _MANY) // _MANY)
    computed = [*range(1, min(most, _MANY) + 1), *range(_MANY + step, most, step), most]
    rates: list[float] = []
    for n in computed:
        rate = _closed_rate(n, delay, cpu, cpus)
        below, last = len(rates), rates[-1] if rates else 0.0
        rates += [last + (rate - last) * (m - below) / (n - below) for m in range(below + 1, n + 1)]
    return rates


def _closed_rate(population: int, delay: float, cpu: float, cpus: int) -> float:
    weight, total, rate = 1.0, 1.0, 0.0
    for at_cpu in range(1, population + 1):
        busy = min(at_cpu, cpus)
        weight *= (population - at_cpu + 1) * cpu / (delay * busy)
        total += weight
        rate += weight * busy / cpu
        if total > _HUGE:
            weight, total, rate = weight / _HUGE, total / _HUGE, rate / _HUGE
    return rate / total


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue in balance. Arrivals that find all places taken wait with probability `waits`, and
    are lost with `lost`. `in_service` is the mean number that are served. Of `tail`, entry n is the
    probability to wait while n others do, and places become free `rate` times a second; without an
    end of the queue, it is empty, and waits are exponential with the mean `wait` / `waits`.
    """

    lost: float
    waits: float
    wait: float
    in_service: float
    rate: float
    tail: tuple[float, ...] = ()


def queue_of(arrivals: float, rates: Sequence[float], room: int | None) -> Queue | None:
    """Returns the balance of a birth and death process: `arrivals` a second, `rates[n - 1]` ends a
    second while n are served, and `room` for those that wait. None without an end of the queue, and
    too many arrivals. With equal servers it is M/M/c, and with `room` 0 Erlang B.
    """
    room = min(room, _MOST_ROOM) if room is not None else None
    weights = _scaled(arrivals, rates)
    places, ratio = len(rates), arrivals / rates[-1]
    if room and ratio < 1 and ratio**room < _NEGLIGIBLE:
        room = None
    if room is None:
        if ratio >= 1:
            return None
        beyond = weights[-1] * ratio / (1 - ratio)  # with more than `places`
        total = sum(weights) + beyond
        waits = (weights[-1] + beyond) / total
        served = (sum(n * w for n, w in enumerate(weights)) + places * beyond) / total
        return Queue(0.0, waits, waits / (rates[-1] - arrivals), served, rates[-1])
    queued = [weights[-1]]
    for _ in range(room):
        queued.append(queued[-1] * ratio)
        if queued[-1] > _HUGE:
            queued, weights = [q / _HUGE for q in queued], [w / _HUGE for w in weights]
    total = sum(weights) + sum(queued[1:])
    lost = queued[-1] / total
    taken = total * (1 - lost) or 1.0
    tail = tuple(weight / taken for weight in queued[:-1])
    served = (sum(n * w for n, w in enumerate(weights)) + places * sum(queued[1:])) / total
    wait = sum((n + 1) * share for n, share in enumerate(tail)) / rates[-1]
    return Queue(lost, sum(tail), wait, served, rates[-1], tail)


def _scaled(arrivals: float, rates: Sequence[float]) -> list[float]:
    """Returns what 0, 1, ... in service weigh."""
    weights = [1.0]
    for rate in rates:
        weights.append(weights[-1] * arrivals / rate)
        if weights[-1] > _HUGE:
            weights = [weight / _HUGE for weight in weights]
    return weights


def waiting_longer(queue: Queue, seconds: float) -> float:
    """Returns the share of requests that wait for longer, first come, first served."""
    if not queue.tail:
        decay = queue.waits / queue.wait if queue.wait else math.inf
        return queue.waits * math.exp(-seconds * decay) if queue.waits else 0.0
    if seconds <= 0:
        return queue.waits
    ends = queue.rate * seconds
    longer, rest = 0.0, queue.waits
    for number, share in enumerate(queue.tail):  # while n others end, as a Poisson process
        longer += rest * math.exp(number * math.log(ends) - ends - math.lgamma(number + 1))
        rest -= share
    return min(queue.waits, longer)


def gamma_below(shape: float, value: float) -> float:
    """Returns the share of a gamma distribution with scale 1 below `value`: the incomplete gamma
    function, as its series or its continued fraction (Numerical Recipes, 6.2).
    """
    if value <= 0:
        return 0.0
    scale = math.exp(shape * math.log(value) - value - math.lgamma(shape))
    if value < shape + 1:
        term = total = 1 / shape
        number = shape
        while term > total * 1e-12:
            number += 1
            term *= value / number
            total += term
        return total * scale
    b = value + 1 - shape
    c, d = 1e300, 1 / b
    fraction = d
    for number_ in range(1, 1000):
        a = -number_ * (number_ - shape)
        b += 2
        d = 1 / (a * d + b or 1e-300)
        c = b + a / c or 1e-300
        fraction *= d * c
        if abs(d * c - 1) < 1e-12:
            break
    return 1 - scale * fraction


def points_of_gamma(mean: float, variability: float) -> list[float]:
    """Returns equally likely values of a gamma distribution. `variability` is its variance over the
    square of its mean: 0 for a constant, 1 for the exponential distribution.
    """
    if variability < 1e-4 or mean <= 0:
        return [mean]
    shape = 1 / variability
    return [
        mean / shape * _inverse(lambda x: gamma_below(shape, x), share, shape)
        for share in _shares()
    ]


def points_of_wait(queue: Queue, stretched: float = 1.0) -> list[float]:
    """Returns equally likely waits in a queue, `stretched` by a factor."""
    if not queue.wait:
        return [0.0]
    if len(queue.tail) > _LONG:
        return [stretched * wait for wait in _long_waits(queue)]
    middle = queue.wait / queue.waits
    return [
        stretched * _inverse(lambda t: 1 - waiting_longer(queue, t), share, middle)
        if share > 1 - queue.waits
        else 0.0
        for share in _shares()
    ]


def _long_waits(queue: Queue) -> Iterator[float]:
    """Yields the waits of a long queue, where that for n ends is hardly random."""
    ahead, below = -1, 1 - queue.waits
    for share in _shares():
        while below < share and ahead < len(queue.tail) - 1:
            ahead += 1
            below += queue.tail[ahead]
        yield (ahead + 1) / queue.rate


def _shares() -> list[float]:
    return [(number + 0.5) / _POINTS for number in range(_POINTS)]


def _inverse(below: Callable[[float], float], share: float, guess: float) -> float:
    """Returns where `below`, which grows, reaches `share`."""
    low, high = 0.0, guess
    while below(high) < share and high < 1e9 * guess:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < share else (low, middle)
    return (low + high) / 2


def percentile_of_sum(one: Sequence[float], other: Sequence[float], share: float) -> float:
    """Returns the percentile of the sum of two independent quantities, given by equally likely
    values.
    """
    sums = sorted(a + b for a in one for b in other)
    return sums[min(len(sums) - 1, int(share * len(sums)))]
