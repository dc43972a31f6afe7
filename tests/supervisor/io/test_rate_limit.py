"""The limit on printed lines, by a clock of its own."""

from __future__ import annotations

from servd.supervisor.io.rate_limit import REPORT_SECONDS, LineRate


class Limited:
    def __init__(self, rate: int) -> None:
        self.now = 0.0
        self.reports: list[int] = []
        self.rate = LineRate(rate, self.reports.append, lambda: self.now)


def test_what_is_below_the_rate_passes() -> None:
    limited = Limited(100)
    for _ in range(50):
        assert limited.rate.admit(10) == 10
        limited.now += 0.1
    limited.rate.report()
    assert limited.reports == []


def test_a_burst_of_a_second_passes_and_what_follows_at_the_rate() -> None:
    limited = Limited(100)
    assert limited.rate.admit(1000) == 100
    assert limited.rate.admit(1000) == 0
    limited.now = 0.5
    assert limited.rate.admit(1000) == 50


def test_drops_are_reported_at_once_and_then_from_time_to_time() -> None:
    limited = Limited(10)
    limited.rate.admit(30)
    limited.rate.admit(5)
    assert limited.reports == [20]
    limited.now = REPORT_SECONDS
    limited.rate.admit(0)
    assert limited.reports == [20, 5]
    limited.rate.admit(20)
    limited.rate.report()
    assert limited.reports == [20, 5, 10]


def test_no_rate_is_no_limit() -> None:
    limited = Limited(0)
    assert limited.rate.admit(10**9) == 10**9
    assert limited.reports == []


def test_a_new_rate_applies_at_once() -> None:
    limited = Limited(10)
    limited.rate.admit(10)
    limited.rate.rate = 1000
    limited.now = 1.0
    assert limited.rate.admit(2000) == 1000
