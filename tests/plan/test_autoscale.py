"""The policy of numbers of workers that follow the load."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servd.config.worker_tables import Autoscale
from servd.plan.autoscale import LoadHistory, autoscaled, wanted_workers

from support.config_texts import plan_text

SCALE = Autoscale(min=1, max=8, target_in_flight=4, up_after=10.0, down_after=300.0)
STEP = 0.5


def run(
    load: Callable[[float], float], seconds: float, scale: Autoscale = SCALE, workers: int = 1
) -> list[tuple[float, int]]:
    """The changes (time, workers) that the policy makes of a load."""
    history = LoadHistory(scale)
    found, since = [(0.0, workers)], 0.0
    for step in range(int(seconds / STEP)):
        now = step * STEP
        history.add(now, load(now))
        wanted = wanted_workers(history, workers, since)
        if wanted != workers:
            found.append((now, wanted))
            workers, since = wanted, now
    return found


def test_a_load_above_the_target_adds_workers_once_it_has_lasted() -> None:
    assert run(lambda now: 12.0, 60) == [(0.0, 1), (10.0, 3)]


def test_a_load_at_the_target_adds_none() -> None:
    assert run(lambda now: 4.0, 1000) == [(0.0, 1)]
    assert run(lambda now: 4.3, 1000) == [(0.0, 1)]


def test_a_short_burst_adds_none() -> None:
    assert run(lambda now: 200.0 if 20 <= now < 23 else 1.0, 400) == [(0.0, 1)]


def test_fewer_only_after_a_long_quiet_and_only_as_far_as_its_peak_allows() -> None:
    def load(now: float) -> float:
        return 24.0 if now < 60 else 9.0 if now < 200 else 3.0

    changes = run(load, 1000)
    assert changes[:2] == [(0.0, 1), (10.0, 6)]
    assert [workers for _, workers in changes[2:]] == [5, 3, 2, 1]
    assert [at - 300 for at, _ in changes[2:]] == [65, 70, 205, 210]  # as the means of 10 s fall


def test_limits_hold() -> None:
    assert run(lambda now: 1000.0, 60)[-1] == (10.0, 8)
    low = Autoscale(min=2, max=8, target_in_flight=4, up_after=1.0, down_after=5.0)
    assert run(lambda now: 0.0, 60, low, workers=5)[-1] == (5.0, 2)


def test_a_load_that_swings_around_a_step_does_not_flap() -> None:
    """Between 7 and 9 in flight: two or three workers, and not in turn."""
    chance = random.Random(4)
    changes = run(lambda now: 8 + 1.5 * math.sin(now / 7) + chance.uniform(-2, 2), 7200)
    assert len(changes) <= 3
    assert [workers for _, workers in changes] == sorted(workers for _, workers in changes)


def test_a_daily_curve_is_followed_with_few_changes() -> None:
    """From 2 to 26 in flight and back in an hour of swings: each number once on the way up."""
    chance = random.Random(7)

    def load(now: float) -> float:
        mean = 14 - 12 * math.cos(2 * math.pi * now / 3600)
        return max(0.0, chance.gauss(mean, math.sqrt(mean)))

    changes = run(load, 3600)
    numbers = [workers for _, workers in changes]
    peak = numbers.index(max(numbers))
    assert max(numbers) in (7, 8)
    assert numbers[: peak + 1] == sorted(set(numbers[: peak + 1]))
    assert numbers[peak:] == sorted(set(numbers[peak:]), reverse=True)
    assert numbers[-1] <= 4


@given(
    loads=st.lists(st.floats(0, 1000), min_size=1, max_size=100),
    workers=st.integers(1, 8),
    since=st.floats(0, 60),
    up=st.floats(0, 60),
    down=st.floats(0, 60),
)
def test_it_is_within_its_limits_whatever_it_sees(
    loads: list[float], workers: int, since: float, up: float, down: float
) -> None:
    scale = Autoscale(min=2, max=6, target_in_flight=0.5, up_after=up, down_after=down)
    history = LoadHistory(scale)
    for index, load in enumerate(loads):
        history.add(index * STEP, load)
    assert 2 <= wanted_workers(history, workers, since) <= 6


def test_a_long_time_takes_no_more_memory_than_a_short_one() -> None:
    scale = Autoscale(up_after=3600.0, down_after=86400.0)
    history = LoadHistory(scale)
    for index in range(200_000):
        history.add(index * STEP, index % 7)
    assert len(history.recent) < 70
    assert len(history.peaks) < 70
    assert history.mean == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize(("number", "workers"), [(0, 2), (1, 2), (4, 4), (9, 6)])
def test_a_number_stays_within_the_limits_of_the_file(number: int, workers: int) -> None:
    plan = plan_text(
        """
        [services.web]
        app = "main:app"
        autoscale = { min = 2, max = 6 }
        [services.own]
        command = "sleep 1"
        """
    )
    assert plan.service("web").workers == 2
    scaled = autoscaled(plan, {"web": number, "own": 7, "gone": 3})
    assert scaled.service("web").workers == workers
    assert scaled.service("own").workers == 1
