"""The history of rates: rings of numbers."""

from __future__ import annotations

from servd.daemon.metrics.history import FIGURES, RateHistory
from servd.daemon.metrics.rates import NOT_COUNTED, Rate


def rate(per_second: float) -> Rate:
    return Rate(per_second, 1.0, 2 * per_second, 0.5, 0.25)


def recorded(*values: float, samples: int = 4) -> RateHistory:
    history = RateHistory(samples)
    for value in values:
        history.record({"web": rate(value)})
    return history


def test_each_figure_of_a_sample_is_kept() -> None:
    history = recorded(3.0)
    assert history.after(0) == {
        "web": {"rps": [3.0], "rps_4xx": [0.5], "rps_5xx": [0.25], "p99_ms": [6.0]}
    }
    assert set(FIGURES.values()) <= set(Rate.__slots__)


def test_only_the_last_samples_are_kept_oldest_first() -> None:
    history = recorded(1, 2, 3, 4, 5, 6)
    assert history.newest == 6
    assert history.after(0)["web"]["rps"] == [3, 4, 5, 6]


def test_only_samples_that_the_caller_lacks_are_returned() -> None:
    history = recorded(1, 2, 3, 4, 5, 6)
    assert history.after(4)["web"]["rps"] == [5, 6]
    assert history.after(6)["web"]["rps"] == []
    assert history.after(1)["web"]["rps"] == [3, 4, 5, 6], "older ones are gone"


def test_a_number_of_another_daemon_returns_everything() -> None:
    assert recorded(1, 2).after(700)["web"]["rps"] == [1, 2]
    assert recorded(1, 2).after(-1)["web"]["rps"] == [1, 2]


def test_what_was_not_measured_is_none() -> None:
    history = recorded(1)
    history.record({"web": NOT_COUNTED})
    assert history.after(0)["web"]["p99_ms"] == [2, None]


def test_a_new_service_is_as_long_as_the_others_and_a_removed_one_is_forgotten() -> None:
    history = recorded(1, 2)
    history.record({"web": rate(3), "new": rate(9)})
    assert history.after(0)["new"]["rps"] == [None, None, 9]
    assert history.after(2)["new"]["rps"] == [9]
    history.record({"new": rate(8)})
    assert set(history.after(0)) == {"new"}
    history.record({"web": rate(5), "new": rate(7)})
    assert history.after(0)["web"]["rps"] == [None, None, None, 5], "not what it was before"


def test_no_sample_gives_no_service() -> None:
    assert RateHistory().after(0) == {}
