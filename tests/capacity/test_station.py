"""Forecasts of stations and of graphs, beside simulations and by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from servd.capacity.network import Goal, ServiceNode, arrivals_of, expect, outlooks
from servd.capacity.station import Demand, Station, capacity, forecast

from support.queue_simulator import shared_cpus, simulated

DISTRIBUTIONS: dict[float, Callable[[random.Random], float]] = {
    0.0: lambda rng: 0.04,
    0.25: lambda rng: rng.gammavariate(4, 0.01),
    1.0: lambda rng: rng.expovariate(25),
}


@pytest.mark.parametrize("variability", DISTRIBUTIONS)
@pytest.mark.parametrize("load", [0.5, 0.7, 0.85])
@pytest.mark.parametrize(("workers", "places"), [(1, 1), (1, 4), (4, 8)])
def test_places_are_as_simulated(
    variability: float, load: float, workers: int, places: int
) -> None:
    arrivals = load * workers * places / 0.04
    found = forecast(Station(workers, 2, places, 1000), Demand(0.04, 0.0, variability), arrivals)
    real = simulated(arrivals, workers * places, 1000, DISTRIBUTIONS[variability])
    assert found.utilisation == pytest.approx(load)
    assert found.throughput == pytest.approx(arrivals)
    assert found.mean == pytest.approx(real.mean, rel=0.05)
    assert found.p95 == pytest.approx(real.p95, rel=0.12)


def test_what_a_short_queue_refuses_is_as_simulated() -> None:
    found = forecast(Station(2, 2, 2, 1), Demand(0.04, 0.0), 90.0)
    real = simulated(90.0, 4, 2, DISTRIBUTIONS[1.0])
    assert found.lost == pytest.approx(real.refused, rel=0.05)
    assert found.throughput == pytest.approx(90 * (1 - real.refused), rel=0.01)
    assert found.p95 == pytest.approx(real.p95, rel=0.05)


@pytest.mark.parametrize("load", [0.5, 0.85])
def test_an_event_loop_is_as_simulated(load: float) -> None:
    """First come, first served, one at a time; the delays of many overlap."""
    for variability, service in DISTRIBUTIONS.items():
        arrivals = load / 0.04
        found = forecast(Station(1, 2), Demand(0.0, 0.04, variability), arrivals)
        real = simulated(arrivals, 1, None, service)
        assert found.mean == pytest.approx(real.mean, rel=0.05)
        assert found.p95 == pytest.approx(real.p95, rel=0.12)
    two = forecast(Station(2, 2), Demand(0.0, 0.04), 2 * load / 0.04)
    assert two.mean == pytest.approx(forecast(Station(1, 2), Demand(0.0, 0.04), load / 0.04).mean)


@pytest.mark.parametrize("cpus", [1, 2])
def test_places_that_share_cpus_are_as_simulated(cpus: int) -> None:
    variability = (0.03**2 + 0.01**2) / 0.04**2  # of two exponential parts
    station, demand = Station(cpus, cpus, 4, 5000), Demand(0.03, 0.01, variability)
    arrivals = 0.8 * capacity(station, demand)
    found = forecast(station, demand, arrivals)
    real = shared_cpus(arrivals, 4 * cpus, 0.03, 0.01, cpus)
    assert found.mean == pytest.approx(real.mean, rel=0.05)
    assert found.p95 == pytest.approx(real.p95, rel=0.15)
    assert found.cpus == pytest.approx(arrivals * 0.01)


def test_the_capacity_is_that_of_places_or_of_cpus() -> None:
    assert capacity(Station(2, 2, 4, 0), Demand(0.04, 0.0)) == pytest.approx(200.0, rel=1e-3)
    assert capacity(Station(1, 2, 4, 0), Demand(0.0, 0.01)) == pytest.approx(100.0, rel=1e-3)
    assert capacity(Station(1, 2), Demand(1.0, 0.01)) == 100.0
    assert capacity(Station(8, 2), Demand(1.0, 0.01)) == 200.0  # two CPUs
    assert capacity(Station(1, 2), Demand(1.0, 0.0)) == math.inf
    assert capacity(Station(0, 2), Demand(1.0, 0.01)) == 0.0


def test_more_than_the_capacity_has_no_percentiles() -> None:
    found = forecast(Station(1, 2), Demand(0.01, 0.01), 150.0)
    assert (found.throughput, found.mean, found.p95) == (100.0, None, None)
    assert found.utilisation == 1.5
    queued = forecast(Station(1, 2, 40, None), Demand(0.4, 0.0), 150.0)
    assert queued.p95 is None
    assert queued.throughput == pytest.approx(100.0, rel=1e-3)
    stopped = forecast(Station(0, 2), Demand(0.01, 0.01), 10.0)
    assert (stopped.throughput, stopped.p95) == (0.0, None)


MODEL = ServiceNode("model", Station(1, 2, 4, 1000), Demand(0.03, 0.0))
WEB = ServiceNode("web", Station(1, 2), Demand(0.005, 0.005), {"model": 2.0})


def test_calls_multiply_the_load() -> None:
    other = ServiceNode("other", Station(1, 2), Demand(0.01, 0.0), {"web": 1.0, "model": 0.5})
    assert arrivals_of([MODEL, WEB, other], {"web": 10.0, "other": 4.0}) == {
        "model": 2 * 14 + 2.0,
        "web": 14.0,
        "other": 4.0,
    }


def test_a_caller_waits_for_what_it_calls() -> None:
    alone = forecast(MODEL.station, MODEL.demand, 100.0)
    found = expect([MODEL, WEB], {"web": 50.0})
    assert found["model"] == alone
    assert alone.mean is not None
    own = forecast(WEB.station, Demand(0.005 + 2 * alone.mean, 0.005), 50.0)
    assert found["web"] == own


def test_a_caller_answers_no_more_than_what_it_calls() -> None:
    found = expect([MODEL, WEB], {"web": 100.0})  # twice 100, where 133 is the most
    assert found["model"].throughput == pytest.approx(400 / 3, rel=1e-3)
    assert found["web"].throughput == pytest.approx(200 / 3, rel=1e-3)
    endless = ServiceNode("model", Station(1, 2, 4, None), Demand(0.03, 0.0))
    assert expect([endless, WEB], {"web": 100.0})["web"].p95 is None


def test_what_is_needed_is_the_fewest_workers_that_reach_the_goal() -> None:
    model, web = outlooks([MODEL, WEB], {"web": 100.0}, Goal())
    assert model.needed is not None
    assert web.needed is not None
    assert model.needed.workers == 3  # 200 of 267 would be 75 %
    assert web.needed.workers == 1  # half a CPU
    assert model.then is not None
    assert model.then.utilisation == pytest.approx(0.5, rel=1e-3)
    assert model.then.throughput == pytest.approx(200.0)
    busy, *_ = outlooks([MODEL], {"model": 200.0}, Goal(utilisation=0.8))
    assert busy.needed is not None
    assert busy.needed.workers == 2


def test_workers_are_added_until_hardly_a_request_is_refused() -> None:
    """Without a queue, a low utilisation is not enough."""
    [one] = outlooks(
        [ServiceNode("web", Station(1, 2, 1, 0), Demand(0.1, 0.0))], {"web": 10.0}, Goal()
    )
    assert one.needed is not None
    assert one.then is not None
    assert one.now.lost == pytest.approx(0.5, rel=1e-3)
    assert one.needed.workers == 6  # Erlang B of 1 erlang: 0.3 % with 5, 0.05 % with 6
    assert one.then.lost <= 0.001


def test_what_is_needed_may_be_more_cpus_than_there_are() -> None:
    [one] = outlooks([ServiceNode("web", Station(1, 2), Demand(0.0, 0.02))], {"web": 200.0}, Goal())
    assert one.needed is not None
    assert one.then is not None
    assert one.needed.workers == 6
    assert one.then.cpus == pytest.approx(4.0)
    assert one.then.p95 is not None
