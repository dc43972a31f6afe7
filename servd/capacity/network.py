"""Forecasts a graph of services: callers hold their places while what they call answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from servd.capacity.station import Demand, Forecast, Station, forecast, is_enough
from servd.core.quick_dataclass import dataclass

MOST_WORKERS = 10_000


@dataclass(frozen=True, slots=True)
class ServiceNode:
    """A service: its station, its own demand (without what it calls), and how many calls of each
    dependency a request makes.
    """

    name: str
    station: Station
    demand: Demand
    calls: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a recommendation keeps to: the most utilisation, and the largest share of refused
    requests.
    """

    utilisation: float = 0.7
    lost: float = 0.001


@dataclass(frozen=True, slots=True)
class Outlook:
    """A node, its arrivals, and what to expect now and with the workers that are needed. `needed`
    is None if no number of workers is enough.
    """

    node: ServiceNode
    now: Forecast
    needed: Station | None
    then: Forecast | None


def arrivals_of(nodes: Sequence[ServiceNode], public: Mapping[str, float]) -> dict[str, float]:
    """Returns the requests per second of each service: from outside, and from its callers. `nodes`
    have dependencies first.
    """
    rates = {node.name: public.get(node.name, 0.0) for node in nodes}
    for node in reversed(nodes):
        for name, count in node.calls.items():
            rates[name] += count * rates[node.name]
    return rates


def expect(nodes: Sequence[ServiceNode], public: Mapping[str, float]) -> dict[str, Forecast]:
    """Returns what to expect of each node. What a service calls is a delay of its own requests; it
    answers no larger share than that.
    """
    rates = arrivals_of(nodes, public)
    found: dict[str, Forecast] = {}
    for node in nodes:
        found[node.name] = _with_calls(node, rates[node.name], found)
    return found


def _with_calls(node: ServiceNode, arrivals: float, found: Mapping[str, Forecast]) -> Forecast:
    called = [(count, found[name]) for name, count in node.calls.items() if count]
    own = forecast(node.station, _whole(node, found), arrivals)
    share = min([1.0, *(one.throughput / one.arrivals for _, one in called if one.arrivals)])
    endless = any(one.mean is None for _, one in called)
    return replace(
        own,
        throughput=min(own.throughput, share * arrivals),
        mean=None if endless else own.mean,
        p95=None if endless else own.p95,
    )


def _whole(node: ServiceNode, found: Mapping[str, Forecast]) -> Demand:
    """Returns the demand with the answers of what the node calls."""
    called = sum(count * (found[name].mean or 0.0) for name, count in node.calls.items())
    return replace(node.demand, delay=node.demand.delay + called)


def outlooks(
    nodes: Sequence[ServiceNode], public: Mapping[str, float], goal: Goal
) -> list[Outlook]:
    """Returns what to expect of each node now, and what is needed. What is needed has as many CPUs
    as it can use.
    """
    now = expect(nodes, public)
    rates = arrivals_of(nodes, public)
    then: dict[str, Forecast] = {}
    found: list[Outlook] = []
    for node in nodes:
        demand = _whole(node, then)
        station = _least(node.station, demand, rates[node.name], goal)
        if station is not None:
            sized = replace(node, station=station)
            then[node.name] = _with_calls(sized, rates[node.name], then)
        else:
            then[node.name] = now[node.name]
        found.append(Outlook(node, now[node.name], station, then[node.name] if station else None))
    return found


def _least(station: Station, demand: Demand, arrivals: float, goal: Goal) -> Station | None:
    """Returns the station with the fewest workers that reach the goal."""
    per_worker = station.places or math.inf
    least = arrivals / goal.utilisation * max(demand.seconds / per_worker, demand.cpu)
    workers = max(1, math.ceil(least - 1e-9))
    while workers <= MOST_WORKERS:
        sized = replace(station, workers=workers, cpus=max(workers, station.cpus))
        if is_enough(sized, demand, arrivals, goal.utilisation, goal.lost):
            return sized
        workers += max(1, workers // 100)
    return None
