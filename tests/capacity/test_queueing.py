"""The formulas, beside values that are known."""

from __future__ import annotations

import itertools
import math

import pytest

from servd.capacity.queueing import (
    closed_rates,
    erlang_b,
    erlang_c,
    gamma_below,
    percentile_of_sum,
    points_of_gamma,
    points_of_wait,
    queue_of,
    waiting_longer,
)


@pytest.mark.parametrize(
    ("servers", "load", "lost", "waits"),
    [  # tables of Erlang's formulas
        (1, 0.5, 1 / 3, 0.5),
        (2, 1.0, 0.2, 1 / 3),
        (5, 3.0, 0.1101, 0.2362),
        (10, 8.0, 0.1217, 0.4092),
        (100, 90.0, 0.0270, 0.2169),
    ],
)
def test_erlangs_formulas(servers: int, load: float, lost: float, waits: float) -> None:
    assert erlang_b(servers, load) == pytest.approx(lost, abs=5e-5)
    assert erlang_c(servers, load) == pytest.approx(waits, abs=5e-5)


def test_everybody_waits_where_the_queue_grows() -> None:
    assert erlang_c(2, 2.0) == erlang_c(2, 3.0) == 1.0
    assert queue_of(3.0, closed_rates(2, 1.0, 0.0, 1), None) is None


@pytest.mark.parametrize(("places", "load"), [(1, 0.3), (4, 2.8), (30, 27.0)])
def test_places_without_cpu_time_are_erlangs_servers(places: int, load: float) -> None:
    rates = closed_rates(places, 1.0, 0.0, 2)
    endless, none = queue_of(load, rates, None), queue_of(load, rates, 0)
    assert endless is not None
    assert none is not None
    assert endless.waits == pytest.approx(erlang_c(places, load))
    assert endless.wait == pytest.approx(erlang_c(places, load) / (places - load))
    assert endless.in_service == pytest.approx(load)
    assert none.lost == pytest.approx(erlang_b(places, load))
    assert none.wait == none.waits == 0.0


def test_a_short_queue_loses_and_a_long_one_is_as_good_as_endless() -> None:
    rates = closed_rates(4, 0.04, 0.0, 1)
    short, long, endless = (queue_of(70.0, rates, room) for room in (5, 60, None))
    assert short is not None
    assert short.lost == pytest.approx(0.02276, abs=1e-5)
    assert sum(short.tail) == pytest.approx(short.waits) == waiting_longer(short, 0.0)
    assert long == endless
    crowded = queue_of(120.0, rates, 1000)
    assert crowded is not None
    assert crowded.lost == pytest.approx(1 - 100 / 120, abs=1e-6)


@pytest.mark.parametrize("arrivals", [70.0, 95.0, 130.0])
@pytest.mark.parametrize("room", [3, 20, 2000, None])
def test_the_waits_have_the_mean_of_the_balance(arrivals: float, room: int | None) -> None:
    queue = queue_of(arrivals, closed_rates(4, 0.04, 0.0, 1), room)
    if queue is None:
        return
    points = points_of_wait(queue)
    assert sum(points) / len(points) == pytest.approx(queue.wait, rel=0.02)


def test_a_closed_network_is_limited_by_its_cpus_and_by_its_delay() -> None:
    assert closed_rates(4, 0.0, 0.1, 1) == pytest.approx([10.0] * 4, rel=1e-4)
    assert closed_rates(4, 0.0, 0.1, 3) == pytest.approx([10.0, 20.0, 30.0, 30.0], rel=1e-4)
    # by hand: two requests, a delay as long as the service time: states 2:2:1 of 0, 1, 2 at the CPU
    assert closed_rates(2, 1.0, 1.0, 1)[1] == pytest.approx(4 / 5)
    many = closed_rates(2000, 1.0, 0.01, 8)
    assert many[-1] == pytest.approx(800.0)
    assert all(a <= b * (1 + 1e-9) for a, b in itertools.pairwise(many))


def test_the_gamma_distribution() -> None:
    assert gamma_below(1.0, 2.0) == pytest.approx(1 - math.exp(-2))
    assert gamma_below(0.5, 0.5) == pytest.approx(math.erf(math.sqrt(0.5)))
    assert gamma_below(3.0, 10.0) == pytest.approx(1 - math.exp(-10) * (1 + 10 + 50))
    assert gamma_below(400.0, 400.0) == pytest.approx(0.5066, abs=1e-4)
    assert points_of_gamma(3.0, 0.0) == [3.0]
    points = points_of_gamma(2.0, 1.0)
    assert sum(points) / len(points) == pytest.approx(2.0, rel=0.01)


def test_a_percentile_of_a_sum() -> None:
    exponential = points_of_gamma(1.0, 1.0)
    assert percentile_of_sum([0.0], exponential, 0.95) == pytest.approx(-math.log(0.05), rel=0.03)
    # two exponentials are a gamma distribution of shape 2, whose 95th percentile is 4.744
    assert percentile_of_sum(exponential, exponential, 0.95) == pytest.approx(4.744, rel=0.02)
